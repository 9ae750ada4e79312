"""Templates: one loop or expression over numbers."""

from __future__ import annotations

from examples.train_mini.kinds import (
    Amount,
    Big,
    Count,
    Digit,
    Flag,
    Int,
    Ints,
    Maybe,
    Naturals,
    Percent,
    Positive,
    SomeInts,
    SortedInts,
)


def count_above(xs: Ints, limit: Int) -> int:
    """Return how many of `xs` are greater than `limit`."""
    total = 0
    for x in xs:
        if x > limit:
            total += 1
    return total


def sum_even(xs: Ints) -> int:
    """Return the sum of the even numbers in `xs`."""
    total = 0
    for x in xs:
        if x % 2 == 0:
            total += x
    return total


def product_of_odd(xs: Ints) -> int:
    """Return the product of the odd numbers in `xs`, 1 if there are none."""
    result = 1
    for x in xs:
        if x % 2 != 0:
            result *= x
    return result


def largest(xs: Ints) -> int | None:
    """Return the largest of `xs`, or None."""
    if not xs:
        return None
    best = xs[0]
    for x in xs[1:]:
        if x > best:
            best = x
    return best


def second_largest(xs: Ints) -> int | None:
    """Return the second largest different number of `xs`, or None."""
    values = sorted(set(xs), reverse=True)
    if len(values) < 2:
        return None
    return values[1]


def index_of_smallest(xs: Ints) -> int:
    """Return the index of the smallest of `xs`, -1 if it is empty."""
    if not xs:
        return -1
    best = 0
    for i in range(1, len(xs)):
        if xs[i] < xs[best]:
            best = i
    return best


def last_index_of(xs: Ints, target: Int) -> int:
    """Return the last index of `target` in `xs`, or -1."""
    for i in range(len(xs) - 1, -1, -1):
        if xs[i] == target:
            return i
    return -1


def rounded_average(xs: Ints) -> int:
    """Return the average of `xs` rounded down, 0 if it is empty."""
    if len(xs) == 0:
        return 0
    return sum(xs) // len(xs)


def spread(xs: SomeInts) -> int:
    """Return the difference between the largest and smallest of `xs`."""
    return max(xs) - min(xs)


def differences(xs: Ints) -> list[int]:
    """Return the differences of neighbours in `xs`."""
    return [xs[i] - xs[i - 1] for i in range(1, len(xs))]


def prefix_sums(xs: Ints) -> list[int]:
    """Return the running totals of `xs`."""
    result: list[int] = []
    total = 0
    for x in xs:
        total += x
        result.append(total)
    return result


def suffix_maxima(xs: Ints) -> list[int]:
    """Return, for each place in `xs`, the largest number from there on."""
    return [max(xs[i:]) for i in range(len(xs))]


def is_rising(xs: Ints) -> bool:
    """Tell whether each number in `xs` is larger than the one before."""
    for i in range(len(xs) - 1):
        if xs[i] >= xs[i + 1]:
            return False
    return True


def clamp(x: Int, low: Int, high: Int) -> int:
    """Limit `x` to `low`..`high`."""
    if x < low:
        return low
    if x > high:
        return high
    return x


def sign_of(x: Int) -> int:
    """Return 1, 0 or -1 by the sign of `x`."""
    if x > 0:
        return 1
    if x < 0:
        return -1
    return 0


def is_between(x: Int, low: Int, high: Int) -> bool:
    """Tell whether `x` lies in `low`..`high`, both included."""
    return low <= x <= high


def distance(a: Int, b: Int) -> int:
    """Return how far `a` and `b` are apart."""
    if a > b:
        return a - b
    return b - a


def middle_of_three(a: Int, b: Int, c: Int) -> int:
    """Return the middle one of three numbers."""
    return sorted([a, b, c])[1]


def triangle_number(n: Count) -> int:
    """Return 1 + 2 + ... + `n`."""
    return n * (n + 1) // 2


def factorial(n: Digit) -> int:
    """Return the product of 1..`n`."""
    result = 1
    for i in range(2, n + 1):
        result *= i
    return result


def power(base: Digit, exponent: Digit) -> int:
    """Return `base` to the power `exponent`."""
    result = 1
    for _ in range(exponent):
        result *= base
    return result


def greatest_common_divisor(a: Positive, b: Positive) -> int:
    """Return the greatest common divisor of `a` and `b`."""
    while b != 0:
        a, b = b, a % b
    return a


def is_prime(n: Positive) -> bool:
    """Tell whether `n` is prime."""
    if n < 2:
        return False
    for i in range(2, n):
        if n % i == 0:
            return False
    return True


def count_divisors(n: Positive) -> int:
    """Return how many numbers divide `n`."""
    total = 0
    for i in range(1, n + 1):
        if n % i == 0:
            total += 1
    return total


def proper_divisors(n: Positive) -> list[int]:
    """Return the divisors of `n` below `n`."""
    return [i for i in range(1, n) if n % i == 0]


def digit_sum(n: Big) -> int:
    """Return the sum of the decimal digits of `n`."""
    total = 0
    while n > 0:
        total += n % 10
        n //= 10
    return total


def count_digits(n: Big) -> int:
    """Return the number of decimal digits of `n`."""
    if n == 0:
        return 1
    count = 0
    while n > 0:
        count += 1
        n //= 10
    return count


def reverse_number(n: Big) -> int:
    """Return `n` with its digits in reverse order."""
    result = 0
    while n > 0:
        result = result * 10 + n % 10
        n //= 10
    return result


def largest_digit(n: Big) -> int:
    """Return the largest digit of `n`."""
    return max(int(digit) for digit in str(n))


def fibonacci(n: Count) -> int:
    """Return the Fibonacci number at position `n`."""
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def squares_up_to(n: Big) -> list[int]:
    """Return the squares that are at most `n`."""
    result: list[int] = []
    i = 1
    while i * i <= n and i <= 8:
        result.append(i * i)
        i += 1
    return result


def whole_root(n: Big) -> int:
    """Return the largest number whose square is at most `n`."""
    root = 0
    while (root + 1) * (root + 1) <= n:
        root += 1
    return root


def weighted_sum(xs: Ints) -> int:
    """Return the sum of each of `xs` times its place, counted from 1."""
    return sum(i * x for i, x in enumerate(xs, 1))


def dot_product(xs: Ints, ys: Ints) -> int:
    """Return the sum of the products of `xs` and `ys`, place by place."""
    total = 0
    for x, y in zip(xs, ys, strict=False):
        total += x * y
    return total


def count_sign_changes(xs: Ints) -> int:
    """Return how often neighbours in `xs` have different signs."""
    count = 0
    for i in range(len(xs) - 1):
        a, b = xs[i], xs[i + 1]
        if (a < 0) != (b < 0):
            count += 1
    return count


def longest_rise(xs: Ints) -> int:
    """Return the length of the longest rising stretch of `xs`."""
    if not xs:
        return 0
    best = current = 1
    for i in range(1, len(xs)):
        if xs[i] > xs[i - 1]:
            current += 1
            best = max(best, current)
        else:
            current = 1
    return best


def best_stretch(xs: SomeInts) -> int:
    """Return the largest sum of neighbours in `xs`."""
    best = current = xs[0]
    for x in xs[1:]:
        current = max(x, current + x)
        best = max(best, current)
    return best


def percent_of(part: Int, percent: Percent) -> int:
    """Return `percent` percent of `part`, rounded down."""
    return part * percent // 100


def price_after_discount(price: Amount, percent: Percent) -> float:
    """Return `price` less `percent` percent."""
    return price - price * percent / 100


def shipping_fee(total: Positive) -> int:
    """Return the fee: free from 20 on, otherwise 5, and 2 more below 8."""
    if total >= 20:
        return 0
    fee = 5
    if total < 8:
        fee += 2
    return fee


def late_fee(days: Count, member: Flag) -> int:
    """Return 3 for each day after the second, half of it for members."""
    if days <= 2:
        return 0
    fee = (days - 2) * 3
    if member:
        fee //= 2
    return fee


def or_default(value: Maybe, default: Int) -> int:
    """Return `value` if there is one, else `default`."""
    if value is None:
        return default
    return value


def replace_negative(xs: Ints, value: Digit = 0) -> list[int]:
    """Return `xs` with negative numbers replaced by `value`."""
    return [value if x < 0 else x for x in xs]


def histogram_bars(xs: Naturals) -> list[str]:
    """Return a bar of stars for each of `xs`."""
    return ["*" * x for x in xs]


def insert_sorted(xs: SortedInts, value: Int) -> list[int]:
    """Return sorted `xs` with `value` at its place."""
    for i, x in enumerate(xs):
        if value < x:
            return [*xs[:i], value, *xs[i:]]
    return [*xs, value]


def steps_to_zero(n: Positive) -> int:
    """Return how many steps lead to 0: halve even numbers, take 1 from odd ones."""
    steps = 0
    while n > 0:
        if n % 2 == 0:
            n //= 2
        else:
            n -= 1
        steps += 1
    return steps


def payment_plan(total: Big, parts: Positive) -> list[int]:
    """Split `total` into at most five parts that differ by at most 1."""
    count = min(parts, 5)
    base, rest = divmod(total, count)
    return [base + 1 if i < rest else base for i in range(count)]
