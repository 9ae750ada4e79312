"""Integers: number theory, digits, bases, progressions, rounding, fractions, statistics and geometry."""

from __future__ import annotations

from collections import Counter
from math import gcd, isqrt
from typing import Annotated

from examples.train_mini.kinds import (
    Amount,
    Amounts,
    Big,
    Bits,
    Count,
    Digit,
    Draw,
    Flag,
    Int,
    Ints,
    Naturals,
    Pairs,
    Percent,
    Positive,
    SomeInts,
    between,
    choice,
    list_of,
    tuple_of,
)

POINT = tuple_of(between(-4, 6), between(-4, 6))
Point = Annotated[tuple[int, int], POINT]
Points = Annotated[list[tuple[int, int]], list_of(POINT, 0, 4)]
Base = Annotated[int, between(2, 9)]
Fraction = Annotated[tuple[int, int], tuple_of(between(-6, 9), between(1, 9))]
Modulus = Annotated[int, between(2, 13)]
Box = Annotated[
    tuple[int, int, int, int],
    Draw(
        lambda rng: (
            x := rng.randint(-2, 5),
            y := rng.randint(-2, 5),
            x + rng.randint(1, 6),
            y + rng.randint(1, 6),
        )
    ),
]


def coprime_below(n: Positive) -> int:
    """Count the numbers from 1 to n that share no divisor with n."""
    return sum(1 for k in range(1, n + 1) if gcd(k, n) == 1)


def greatest_power_inside(n: Annotated[int, between(1, 400)], base: Base) -> int:
    """Return how often a base divides n."""
    exponent = 0
    while n % base == 0:
        n //= base
        exponent += 1
    return exponent


def power_modulo(base: Positive, exponent: Annotated[int, between(0, 20)], modulus: Modulus) -> int:
    """Raise to a power modulo a number by squaring."""
    result = 1
    base %= modulus
    while exponent > 0:
        if exponent % 2 == 1:
            result = result * base % modulus
        base = base * base % modulus
        exponent //= 2
    return result


def inverse_modulo(a: Positive, modulus: Modulus) -> int | None:
    """Return the number that gives 1 when multiplied by a modulo a number, None if there is none."""
    for candidate in range(1, modulus):
        if a * candidate % modulus == 1:
            return candidate
    return None


def bezout(a: Positive, b: Positive) -> tuple[int, int, int]:
    """Return the greatest common divisor g and x, y with a * x + b * y = g."""
    x, next_x, y, next_y = 1, 0, 0, 1
    while b != 0:
        quotient, rest = divmod(a, b)
        a, b = b, rest
        x, next_x = next_x, x - quotient * next_x
        y, next_y = next_y, y - quotient * next_y
    return a, x, y


def smallest_divisor(n: Annotated[int, between(2, 300)]) -> int:
    """Return the smallest divisor above 1."""
    if n % 2 == 0:
        return 2
    d = 3
    while d * d <= n:
        if n % d == 0:
            return d
        d += 2
    return n


def next_prime(n: Annotated[int, between(0, 120)]) -> int:
    """Return the smallest prime above n."""
    candidate = max(n + 1, 2)
    while any(candidate % d == 0 for d in range(2, isqrt(candidate) + 1)):
        candidate += 1
    return candidate


def prime_pairs(even: Annotated[int, between(2, 40)]) -> list[tuple[int, int]]:
    """List the pairs of primes p <= q with a given sum."""
    primes = [p for p in range(2, even) if all(p % d for d in range(2, p))]
    return [(p, even - p) for p in primes if p <= even - p and even - p in primes]


def square_free_part(n: Annotated[int, between(1, 300)]) -> int:
    """Divide n by square factors until none is left."""
    d = 2
    while d * d <= n:
        while n % (d * d) == 0:
            n //= d * d
        d += 1
    return n


def as_two_squares(n: Annotated[int, between(0, 60)]) -> tuple[int, int] | None:
    """Return a <= b with a * a + b * b = n and the smallest a, None if there are none."""
    for a in range(isqrt(n) + 1):
        b = isqrt(n - a * a)
        if a * a + b * b == n and a <= b:
            return a, b
    return None


def right_triangles(limit: Annotated[int, between(3, 26)]) -> list[tuple[int, int, int]]:
    """List the right triangles with whole sides and a longest side up to a limit."""
    found: list[tuple[int, int, int]] = []
    for c in range(5, limit + 1):
        for a in range(1, c):
            b = isqrt(c * c - a * a)
            if a <= b and a * a + b * b == c * c:
                found.append((a, b, c))
    return found


def digital_root(n: Big, base: Annotated[int, between(8, 10)] = 10) -> int:
    """Add up digits again and again until one digit is left."""
    while n >= base:
        total = 0
        while n > 0:
            n, digit = divmod(n, base)
            total += digit
        n = total
    return n


def alternating_digit_sum(n: Big) -> int:
    """Add and subtract the digits in turn, beginning with the last one."""
    total, sign = 0, 1
    while n:
        total += sign * (n % 10)
        sign = -sign
        n //= 10
    return total


def digits_in_order(n: Big, falling: Flag = False) -> int:
    """Sort the digits of a number and read them as a number."""
    digits = sorted(str(n), reverse=falling)
    return int("".join(digits))


def kaprekar_step(n: Annotated[int, between(0, 9999)]) -> int:
    """Subtract the four digits in rising order from those in falling order."""
    digits = sorted(f"{n:04d}")
    low = int("".join(digits))
    high = int("".join(reversed(digits)))
    return high - low


def remove_digit(n: Annotated[int, between(10, 9999)]) -> int:
    """Return the largest number that is left when one digit is taken out."""
    text = str(n)
    return max(int(text[:i] + text[i + 1 :]) for i in range(len(text)))


def persistence(n: Annotated[int, between(0, 999)]) -> int:
    """Count how often digits can be multiplied until one digit is left."""
    steps = 0
    while n >= 10:
        product = 1
        for digit in str(n):
            product *= int(digit)
        n = product
        steps += 1
    return steps


def is_harshad(n: Annotated[int, between(1, 120)]) -> bool:
    """Tell whether a number is divisible by the sum of its digits."""
    return n % sum(map(int, str(n))) == 0


def happy_steps(n: Annotated[int, between(1, 100)], most: Annotated[int, between(3, 9)] = 8) -> int:
    """Count the steps of adding squared digits down to 1; -1 if it takes too many."""
    for step in range(most + 1):
        if n == 1:
            return step
        n = sum(int(digit) ** 2 for digit in str(n))
    return -1


def rotate_digits(n: Annotated[int, between(0, 9999)], places: Annotated[int, between(0, 5)] = 1) -> int:
    """Move digits from the start of a number to its end."""
    text = str(n)
    places %= len(text)
    return int(text[places:] + text[:places])


def balanced_ternary(n: Annotated[int, between(-40, 40)]) -> str:
    """Write a number with the digits +, 0 and - that stand for 1, 0 and -1 times powers of three."""
    text = ""
    while n != 0:
        rest = (n + 1) % 3 - 1
        text = "-0+"[rest + 1] + text
        n = (n - rest) // 3
    return text or "0"


def signed_value(bits: Bits) -> int:
    """Read bits as a number in two's complement."""
    value = int(bits, 2)
    if bits[0] == "1":
        value -= 1 << len(bits)
    return value


def trailing_zeros_of_factorial(n: Annotated[int, between(0, 130)]) -> int:
    """Count the zeros at the end of 1 * 2 * ... * n."""
    zeros = 0
    power = 5
    while power <= n:
        zeros += n // power
        power *= 5
    return zeros


def lowest_set_bit(n: Big) -> int:
    """Return the place of the lowest bit that is set, -1 for 0."""
    if n == 0:
        return -1
    place = 0
    while not n >> place & 1:
        place += 1
    return place


def longest_bit_gap(n: Big) -> int:
    """Return the longest run of zeros between two ones in binary."""
    inner = f"{n:b}".strip("0")
    return max(len(run) for run in inner.split("1"))


def next_power_of_two(n: Annotated[int, between(-2, 140)]) -> int:
    """Return the smallest power of two that is not below n."""
    power = 1
    while power < n:
        power <<= 1
    return power


def odd_one_out(
    values: Annotated[list[int], choice([3, 1, 3], [5], [2, 2, 7, 4, 4], [], [9, 8, 9, 8], [1, 2, 1, 6, 2])],
) -> int:
    """Return what is left when equal numbers cancel each other bit by bit."""
    left = 0
    for value in values:
        left ^= value
    return left


def swap_nibbles(byte: Annotated[int, between(0, 255)], flip: Flag = False) -> int:
    """Exchange the upper and lower four bits of a byte, and flip all bits if asked."""
    swapped = (byte & 0x0F) << 4 | byte >> 4
    return swapped ^ 0xFF if flip else swapped


def arithmetic_sum(first: Int, step: Annotated[int, between(-3, 5)], count: Count) -> int:
    """Add up the first terms of an arithmetic progression."""
    last = first + (count - 1) * step
    return (first + last) * count // 2


def geometric_terms(
    first: Digit, ratio: Annotated[int, between(-3, 4)], limit: Annotated[int, between(1, 90)]
) -> list[int]:
    """List at most six terms of a geometric progression while they stay within a limit."""
    terms: list[int] = []
    term = first
    while len(terms) < 6 and abs(term) <= limit:
        terms.append(term)
        term *= ratio
    return terms


def kind_of_progression(
    values: Annotated[
        list[int], choice([1, 2, 3], [2, 4, 8], [5, 5, 5], [1, 2, 4], [9, 6, 3], [1, 2, 5], [3, -3, 3], [4])
    ],
) -> str:
    """Name a sequence: short, constant, arithmetic, geometric or other."""
    if len(values) < 3:
        return "short"
    if len(set(values)) == 1:
        return "constant"
    triples = list(zip(values, values[1:], values[2:], strict=False))
    if all(b - a == c - b for a, b, c in triples):
        return "arithmetic"
    return "geometric" if all(b * b == a * c for a, b, c in triples) else "other"


def extrapolate(values: Annotated[list[int], list_of(between(-3, 9), 1, 5)]) -> int:
    """Continue a sequence by adding up the last values of its repeated differences."""
    total = values[-1]
    while len(values) > 1 and any(values):
        values = [values[i + 1] - values[i] for i in range(len(values) - 1)]
        total += values[-1]
    return total


def multiples_sum(limit: Annotated[int, between(0, 60)], a: Modulus = 3, b: Modulus = 5) -> int:
    """Add up the numbers below a limit that a or b divides."""
    return sum(n for n in range(limit) if n % a == 0 or n % b == 0)


def sylvester_like(
    start: Annotated[int, between(0, 5)],
    other: Annotated[int, between(0, 5)],
    count: Annotated[int, between(0, 7)],
) -> list[int]:
    """List a sequence in which every term is the last one doubled plus the one before."""
    terms = [start, other]
    while len(terms) < count:
        terms.append(2 * terms[-1] + terms[-2])
    return terms[:count]


def binomial(n: Annotated[int, between(0, 12)], k: Annotated[int, between(-1, 13)]) -> int:
    """Return in how many ways k of n things can be chosen."""
    if k < 0 or k > n:
        return 0
    k = min(k, n - k)
    result = 1
    for i in range(1, k + 1):
        result = result * (n - k + i) // i
    return result


def round_half_even(
    numerator: Annotated[int, between(-30, 60)], denominator: Annotated[int, between(1, 6)] = 2
) -> int:
    """Divide and round to the nearest whole number, halves to the even one."""
    quotient, rest = divmod(numerator, denominator)
    if 2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1):
        quotient += 1
    return quotient


def truncated_quotient(a: Int, b: Annotated[int, choice(-5, -3, -2, 2, 3, 4, 7)]) -> tuple[int, int]:
    """Divide with rounding towards zero and return quotient and rest."""
    quotient = abs(a) // abs(b)
    if (a < 0) != (b < 0):
        quotient = -quotient
    return quotient, a - quotient * b


def snap_to_grid(value: Int, step: Annotated[int, between(2, 9)], offset: Digit = 0) -> int:
    """Return the grid point offset + k * step that is nearest; of two the upper one."""
    below = (value - offset) // step * step + offset
    return below if value - below < below + step - value else below + step


def significant(value: Annotated[int, between(0, 99999)], digits: Annotated[int, between(1, 3)]) -> int:
    """Keep the first digits of a number and set the others to zero, rounding half up."""
    unit = 10 ** max(0, len(str(value)) - digits)
    return (value + unit // 2) // unit * unit


def add_fractions(first: Fraction, second: Fraction) -> tuple[int, int]:
    """Add two fractions (numerator, denominator) and reduce the result."""
    (a, b), (c, d) = first, second
    top, bottom = a * d + c * b, b * d
    shared = gcd(top, bottom)
    return top // shared, bottom // shared


def compare_fractions(first: Fraction, second: Fraction) -> str:
    """Compare two fractions without dividing."""
    left = first[0] * second[1]
    right = second[0] * first[1]
    if left == right:
        return "="
    return "<" if left < right else ">"


def mixed_number(
    numerator: Annotated[int, between(-30, 50)], denominator: Annotated[int, between(1, 9)]
) -> str:
    """Write a fraction as a whole number and a rest, such as -2 1/3."""
    sign = "-" if numerator < 0 else ""
    whole, rest = divmod(abs(numerator), denominator)
    if rest == 0:
        return f"{sign}{whole}" if whole else "0"
    return f"{sign}{whole} {rest}/{denominator}" if whole else f"{sign}{rest}/{denominator}"


def continued_fraction(numerator: Annotated[int, between(0, 60)], denominator: Positive) -> list[int]:
    """Return the whole parts of a fraction that is turned over again and again."""
    parts: list[int] = []
    while denominator:
        parts.append(numerator // denominator)
        numerator, denominator = denominator, numerator % denominator
    return parts


def unit_fractions(
    numerator: Annotated[int, between(1, 5)], denominator: Annotated[int, between(2, 9)]
) -> list[int]:
    """Write a fraction as a sum 1/a + 1/b + ..., always taking the largest; at most four."""
    parts: list[int] = []
    while numerator > 0 and len(parts) < 4:
        part = -(-denominator // numerator)
        parts.append(part)
        numerator, denominator = numerator * part - denominator, denominator * part
    return parts


def decimals(
    numerator: Count, denominator: Annotated[int, between(1, 14)], places: Annotated[int, between(0, 6)] = 4
) -> str:
    """Divide by hand and cut off after some places; stop when nothing is left."""
    whole, rest = divmod(numerator, denominator)
    digits = ""
    while rest and len(digits) < places:
        rest *= 10
        digits += str(rest // denominator)
        rest %= denominator
    return f"{whole}.{digits}" if digits else str(whole)


def modes(values: Naturals) -> list[int]:
    """Return the most frequent values in rising order, none if the list is empty."""
    counts = Counter(values)
    most = max(counts.values(), default=0)
    return sorted(value for value, count in counts.items() if count == most)


def trimmed_sum(values: SomeInts, cut: Annotated[int, between(0, 2)] = 1) -> int:
    """Add up the values without some of the smallest and as many of the largest."""
    ordered = sorted(values)
    return sum(ordered[cut : len(ordered) - cut]) if len(ordered) > 2 * cut else 0


def deviation_from_mean(values: SomeInts) -> int:
    """Add up the distances to the mean, each multiplied by the number of values."""
    total, count = sum(values), len(values)
    return sum(abs(value * count - total) for value in values)


def outliers(values: Ints, distance: Digit = 5) -> list[int]:
    """Return the values farther from the lower middle value than a distance."""
    if not values:
        return []
    middle = sorted(values)[(len(values) - 1) // 2]
    return [value for value in values if abs(value - middle) > distance]


def scaled_to_percent(values: Naturals) -> list[int]:
    """Scale values so that the smallest becomes 0 and the largest 100, rounding down."""
    if not values or min(values) == max(values):
        return [0 for _ in values]
    low, high = min(values), max(values)
    return [(value - low) * 100 // (high - low) for value in values]


def exponential_level(values: Amounts, weight: Annotated[float, choice(0.25, 0.5, 0.75)] = 0.5) -> float:
    """Follow values with a level that moves a share of the way to each new one."""
    level = values[0]
    for value in values[1:]:
        level += weight * (value - level)
    return round(level, 2)


def manhattan(first: Point, second: Point, diagonal: Flag = False) -> int:
    """Return the steps between two points of a grid, with or without diagonal ones."""
    dx, dy = abs(first[0] - second[0]), abs(first[1] - second[1])
    return max(dx, dy) if diagonal else dx + dy


def doubled_area(points: Points) -> int:
    """Return twice the area of a polygon, whatever its direction."""
    total = 0
    for i, (x, y) in enumerate(points):
        next_x, next_y = points[(i + 1) % len(points)]
        total += x * next_y - next_x * y
    return abs(total)


def turn_of(a: Point, b: Point, c: Point) -> str:
    """Tell whether the way from a over b to c turns left, right or goes straight."""
    cross = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    if cross == 0:
        return "straight"
    return "left" if cross > 0 else "right"


def overlap_area(first: Box, second: Box) -> int:
    """Return the area that two boxes (left, bottom, right, top) share."""
    left, bottom, right, top = first
    other_left, other_bottom, other_right, other_top = second
    width = min(right, other_right) - max(left, other_left)
    height = min(top, other_top) - max(bottom, other_bottom)
    return width * height if width > 0 and height > 0 else 0


def bounding_box(
    points: Points, margin: Annotated[int, between(0, 2)] = 0
) -> tuple[int, int, int, int] | None:
    """Return left, bottom, right and top around points, with a margin on all sides."""
    if not points:
        return None
    xs = [x for x, _ in points]
    ys = [y for _, y in points]
    return min(xs) - margin, min(ys) - margin, max(xs) + margin, max(ys) + margin


def quadrant(point: Point) -> int:
    """Return the quadrant of a point from 1 to 4, 0 on an axis."""
    x, y = point
    if x == 0 or y == 0:
        return 0
    if x > 0:
        return 1 if y > 0 else 4
    return 2 if y > 0 else 3


def triangle_kind(
    a: Annotated[int, between(1, 6)], b: Annotated[int, between(1, 6)], c: Annotated[int, between(1, 6)]
) -> str:
    """Name a triangle by its sides."""
    a, b, c = sorted((a, b, c))
    if a + b <= c:
        return "none"
    if a == c:
        return "equilateral"
    return "isosceles" if a == b or b == c else "scalene"


def lattice_points(radius: Annotated[int, between(0, 6)], inside: Flag = False) -> int:
    """Count the grid points of a disc, without those on its border if asked."""
    limit = radius * radius - (1 if inside else 0)
    span = range(-radius, radius + 1)
    return sum(1 for x in span for y in span if x * x + y * y <= limit)


def steps_on_line(first: Point, second: Point) -> int:
    """Count the grid points on the line between two points, both included."""
    return gcd(abs(first[0] - second[0]), abs(first[1] - second[1])) + 1


def tiles_for_floor(
    width: Positive, depth: Positive, tile: Annotated[int, between(1, 6)], spare: Percent = 0
) -> int:
    """Count the square tiles that cover a floor, with some percent to spare, rounded up."""
    needed = -(-width // tile) * -(-depth // tile)
    return (needed * (100 + spare) + 99) // 100


def spiral_position(number: Annotated[int, between(1, 26)]) -> tuple[int, int]:
    """Return where a number stands on the spiral that starts 1 at (0, 0) and 2 at (1, 0)."""
    x = y = 0
    dx, dy, run, left = 1, 0, 1, 1
    turns = 0
    for _ in range(number - 1):
        x, y, left = x + dx, y + dy, left - 1
        if left == 0:
            dx, dy = -dy, dx
            turns += 1
            run += turns % 2 == 0
            left = run
    return x, y


def nearest_multiple_pair(pairs: Pairs, factor: Annotated[int, between(1, 4)]) -> tuple[int, int] | None:
    """Return the pair whose second number is closest to the first times a factor; of several the first."""
    return min(pairs, key=lambda pair: abs(pair[0] * factor - pair[1]), default=None)


def rounded_up_amount(amount: Amount, unit: Annotated[float, choice(0.5, 1.0, 2.5, 5.0)] = 1.0) -> float:
    """Round an amount up to the next multiple of a unit."""
    units = int(amount / unit)
    if units * unit < amount:
        units += 1
    return units * unit
