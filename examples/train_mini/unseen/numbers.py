"""Evaluation only: numbers, money, dates."""

from __future__ import annotations

from typing import Annotated

from examples.train_mini.kinds import (
    Amount,
    Amounts,
    Big,
    Bits,
    Count,
    Digit,
    Int,
    Month,
    Naturals,
    Percent,
    Positive,
    SomeInts,
    Year,
    between,
    choice,
    list_of,
)

Celsius = Annotated[int, between(-40, 100)]
Roman = Annotated[str, choice("I", "IV", "IX", "XIV", "XL", "MCM", "XCIX", "MMXX", "CDXLIV", "III", "LVIII")]
Day = Annotated[int, between(1, 28)]
Coins = Annotated[list[int], choice([1, 5, 10, 25], [1, 2, 5], [1, 3, 4], [2, 5])]
Card = Annotated[
    str, choice("4539578763621486", "79927398713", "79927398710", "0", "18", "1234", "5105105105105100", "")
]
Rolls = Annotated[list[int], list_of(between(0, 5), 1, 6)]


def to_fahrenheit(celsius: Celsius) -> float:
    """Convert degrees Celsius to Fahrenheit."""
    return celsius * 9 / 5 + 32


def to_roman(number: Annotated[int, between(1, 3000)]) -> str:
    """Write a number in Roman numerals."""
    pairs = [(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL")]
    pairs += [(10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]
    text = ""
    for value, letters in pairs:
        while number >= value:
            text += letters
            number -= value
    return text


def from_roman(text: Roman) -> int:
    """Read a Roman numeral."""
    values = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
    total = 0
    for i, letter in enumerate(text):
        value = values[letter]
        if i + 1 < len(text) and values[text[i + 1]] > value:
            total -= value
        else:
            total += value
    return total


def count_bits(n: Big) -> int:
    """Count the one bits of `n`."""
    count = 0
    while n:
        count += n & 1
        n >>= 1
    return count


def bits_to_int(bits: Bits) -> int:
    """Read a binary number from text."""
    value = 0
    for bit in bits:
        value = value * 2 + int(bit)
    return value


def to_base(number: Big, base: Annotated[int, between(2, 16)]) -> str:
    """Write `number` in another base."""
    if number == 0:
        return "0"
    digits = "0123456789abcdef"
    text = ""
    while number > 0:
        number, rest = divmod(number, base)
        text = digits[rest] + text
    return text


def prime_factors(n: Annotated[int, between(1, 400)]) -> list[int]:
    """List the prime factors of `n` in rising order."""
    factors: list[int] = []
    divisor = 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            factors.append(divisor)
            n //= divisor
        divisor += 1
    if n > 1:
        factors.append(n)
    return factors


def primes_below(limit: Annotated[int, between(0, 40)]) -> list[int]:
    """Return all primes below `limit` with a sieve."""
    if limit < 2:
        return []
    sieve = [True] * limit
    sieve[0] = sieve[1] = False
    for number in range(2, limit):
        if sieve[number]:
            for multiple in range(number * number, limit, number):
                sieve[multiple] = False
    return [number for number in range(limit) if sieve[number]]


def is_perfect(n: Annotated[int, choice(1, 6, 12, 28, 27, 496, 8, 2)]) -> bool:
    """Tell whether a number equals the sum of its smaller divisors."""
    if n < 2:
        return False
    total = 1
    for divisor in range(2, n // 2 + 1):
        if n % divisor == 0:
            total += divisor
    return total == n


def is_armstrong(n: Annotated[int, choice(0, 1, 9, 10, 153, 154, 370, 371, 400, 407, 9474)]) -> bool:
    """Tell whether a number is the sum of its digits raised to their count."""
    digits = [int(d) for d in str(n)]
    power = len(digits)
    return sum(d**power for d in digits) == n


def collatz_length(n: Positive) -> int:
    """Count the steps of the Collatz sequence down to 1."""
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def least_common_multiple(a: Positive, b: Positive) -> int:
    """Return the smallest number that both divide."""
    x, y = a, b
    while y:
        x, y = y, x % y
    return a * b // x


def tax(income: Annotated[int, between(0, 60000)]) -> int:
    """Tax by brackets: nothing to 10000, 20 % to 30000, 40 % above."""
    brackets = [(10000, 0), (30000, 20), (None, 40)]
    owed = 0
    lower = 0
    for upper, rate in brackets:
        if upper is None or income <= upper:
            owed += (income - lower) * rate // 100
            break
        owed += (upper - lower) * rate // 100
        lower = upper
    return owed


def make_change(amount: Annotated[int, between(0, 60)], coins: Coins) -> int:
    """Return the least number of coins for `amount`, -1 if impossible."""
    best = [0] + [-1] * amount
    for value in range(1, amount + 1):
        for coin in coins:
            if coin <= value and best[value - coin] >= 0:
                if best[value] < 0 or best[value - coin] + 1 < best[value]:
                    best[value] = best[value - coin] + 1
    return best[amount]


def coin_ways(amount: Annotated[int, between(0, 30)], coins: Coins) -> int:
    """Count the ways to pay `amount`."""
    ways = [1] + [0] * amount
    for coin in coins:
        for value in range(coin, amount + 1):
            ways[value] += ways[value - coin]
    return ways[amount]


def climb_ways(steps: Count) -> int:
    """Count the ways to climb stairs by one or two steps."""
    if steps == 0:
        return 1
    previous, current = 1, 1
    for _ in range(steps - 1):
        previous, current = current, previous + current
    return current


def is_leap_year(year: Annotated[int, choice(1900, 2000, 2004, 2023, 2024, 2100, 1996, 1999)]) -> bool:
    """Tell whether a year has 366 days."""
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def days_in_month(year: Year, month: Month) -> int:
    """Return the number of days in a month."""
    if month == 2:
        if year % 400 == 0 or (year % 4 == 0 and year % 100 != 0):
            return 29
        return 28
    if month in (4, 6, 9, 11):
        return 30
    return 31


def day_of_year(month: Month, day: Day, leap: Annotated[bool, choice(True, False)] = False) -> int:
    """Return the number of a day within its year."""
    lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
    total = day
    for index in range(month - 1):
        total += lengths[index]
    if leap and month > 2:
        total += 1
    return total


def age_on(
    birth_year: Year, birth_month: Month, year: Annotated[int, between(2020, 2040)], month: Month
) -> int:
    """Return a person's age in full years."""
    age = year - birth_year
    if month < birth_month:
        age -= 1
    return age


def clock_angle(hour: Annotated[int, between(0, 23)], minute: Annotated[int, between(0, 59)]) -> float:
    """Return the smaller angle between the hands of a clock."""
    hour_angle = (hour % 12) * 30 + minute * 0.5
    minute_angle = minute * 6
    angle = abs(hour_angle - minute_angle)
    return min(angle, 360 - angle)


def compound(principal: Positive, rate: Digit, years: Annotated[int, between(0, 4)]) -> float:
    """Return a capital after some years of compound interest."""
    amount = float(principal)
    for _ in range(years):
        amount += amount * rate / 100
    return round(amount, 2)


def body_mass_class(
    weight: Annotated[int, between(40, 120)], height: Annotated[float, choice(1.5, 1.6, 1.7, 1.8, 2.0)]
) -> str:
    """Name the class of a body mass index."""
    index = weight / height**2
    if index < 18.5:
        return "under"
    if index < 25:
        return "normal"
    if index < 30:
        return "over"
    return "obese"


def letter_grade(score: Percent) -> str:
    """Return the letter for a score."""
    for limit, letter in [(90, "A"), (80, "B"), (70, "C"), (60, "D")]:
        if score >= limit:
            return letter
    return "F"


def fizzbuzz(n: Positive) -> str:
    """Return Fizz, Buzz, FizzBuzz or the number."""
    if n % 15 == 0:
        return "FizzBuzz"
    if n % 3 == 0:
        return "Fizz"
    if n % 5 == 0:
        return "Buzz"
    return str(n)


def luhn_valid(number: Card) -> bool:
    """Check a card number by Luhn's sum."""
    total = 0
    for position, digit in enumerate(reversed(number)):
        value = int(digit)
        if position % 2 == 1:
            value *= 2
            if value > 9:
                value -= 9
        total += value
    return total % 10 == 0


def median(values: SomeInts) -> float:
    """Return the median of numbers."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return float(ordered[middle])
    return (ordered[middle - 1] + ordered[middle]) / 2


def moving_average(values: Amounts, window: Annotated[int, between(1, 3)]) -> list[float]:
    """Average each run of `window` neighbours."""
    averages: list[float] = []
    for start in range(len(values) - window + 1):
        part = values[start : start + window]
        averages.append(round(sum(part) / window, 3))
    return averages


def variance(values: SomeInts) -> float:
    """Return the population variance."""
    mean = sum(values) / len(values)
    return round(sum((value - mean) ** 2 for value in values) / len(values), 4)


def percentile(values: SomeInts, percent: Percent) -> int:
    """Return the value at a percentile by nearest rank."""
    ordered = sorted(values)
    rank = max(1, -(-percent * len(ordered) // 100))
    return ordered[rank - 1]


def polynomial(coefficients: SomeInts, x: Annotated[int, between(-3, 3)]) -> int:
    """Evaluate a polynomial, highest power first."""
    result = 0
    for coefficient in coefficients:
        result = result * x + coefficient
    return result


def simplify(numerator: Int, denominator: Positive) -> tuple[int, int]:
    """Reduce a fraction."""
    a, b = abs(numerator), denominator
    while b:
        a, b = b, a % b
    return numerator // a, denominator // a


def josephus(count: Positive, step: Annotated[int, between(1, 5)]) -> int:
    """Return the place of the survivor when every `step`-th leaves."""
    survivor = 0
    for size in range(2, count + 1):
        survivor = (survivor + step) % size
    return survivor + 1


def pascal_row(n: Digit) -> list[int]:
    """Return a row of Pascal's triangle."""
    row = [1]
    for k in range(n):
        row.append(row[k] * (n - k) // (k + 1))
    return row


def gray_code(n: Big) -> int:
    """Return the n-th Gray code."""
    return n ^ (n >> 1)


def bowling_open_score(rolls: Rolls) -> int:
    """Add up rolls; a ten made by two rolls gives the next roll again."""
    total = 0
    for i, pins in enumerate(rolls):
        total += pins
        if i >= 1 and rolls[i - 1] + pins == 10 and i + 1 < len(rolls):
            total += rolls[i + 1]
    return total


def split_bill(total: Annotated[int, between(1, 500)], people: Annotated[int, between(1, 7)]) -> list[int]:
    """Split cents fairly; the first pay one more if it does not work out."""
    share, left = divmod(total, people)
    return [share + (1 if person < left else 0) for person in range(people)]


def water_trapped(heights: Naturals) -> int:
    """Return how much water stays between bars."""
    total = 0
    for i in range(len(heights)):
        left = max(heights[: i + 1])
        right = max(heights[i:])
        total += min(left, right) - heights[i]
    return total


def best_profit(prices: Naturals) -> int:
    """Return the best profit of buying once and selling later."""
    profit = 0
    lowest = None
    for price in prices:
        if lowest is None or price < lowest:
            lowest = price
        elif price - lowest > profit:
            profit = price - lowest
    return profit


def tip(amount: Amount, percent: Annotated[int, choice(5, 10, 15, 20)]) -> float:
    """Return a bill with its tip, to cents."""
    return round(amount + amount * percent / 100, 2)
