"""Orders, prices, stock, invoices, discounts, loyalty, payroll and shipping."""

from __future__ import annotations

from collections import Counter, deque
from typing import Annotated

from examples.train_mini.kinds import (
    WORD,
    Big,
    Count,
    Digit,
    Draw,
    Flag,
    Int,
    Items,
    Naturals,
    Pairs,
    Percent,
    Positive,
    SomeInts,
    between,
    choice,
    dict_of,
    list_of,
    tuple_of,
)

GOODS: Draw = choice("pen", "cup", "mug", "bag")
ORDER: Draw = list_of(tuple_of(GOODS, between(1, 6)), 0, 4)
STOCK: Draw = dict_of(GOODS, between(0, 9), 0, 4)
PRICES: Draw = list_of(between(1, 40), 0, 7)
PRICE_TEXT: Draw = Draw(
    lambda rng: (
        rng.choice(("$", "", "-$", " ")) + f"{rng.randint(0, 4999):,}" + rng.choice(("", ".5", ".05", ".99"))
    )
)
CODE: Draw = Draw(lambda rng: "".join(rng.choice("0123456789") for _ in range(rng.randint(4, 12))))


def order_total(lines: Pairs, fee: Digit = 5) -> int:
    """Add price times quantity over the lines, plus a fee unless the order is empty."""
    total = 0
    for price, quantity in lines:
        total += price * quantity
    return total + fee if total > 0 else 0


def bulk_price(unit: Positive, quantity: Annotated[int, between(0, 60)]) -> int:
    """Price a quantity with 10 percent off from 10 pieces and 25 percent off from 50."""
    rate = 100
    if quantity >= 50:
        rate -= 25
    elif quantity >= 10:
        rate -= 10
    return unit * quantity * rate // 100


def best_coupon(
    total: Annotated[int, between(0, 60)],
    coupons: Annotated[list[tuple[int, int]], list_of(tuple_of(between(0, 60), between(1, 15)), 0, 4)],
) -> int:
    """Return the largest amount off among coupons whose minimum spend is reached."""
    best = 0
    for minimum, off in coupons:
        if total >= minimum and off > best:
            best = off
    return min(best, total)


def stacked_discounts(price: Big, percents: Annotated[list[int], list_of(between(0, 60), 0, 4)]) -> int:
    """Apply discounts one after the other, each on what is left, largest first."""
    for percent in sorted(percents, reverse=True):
        price -= price * percent // 100
    return price


def free_shipping_gap(
    prices: Annotated[list[int], PRICES], threshold: Annotated[int, between(10, 90)] = 50
) -> int:
    """Say how much more must be spent for free shipping."""
    return max(0, threshold - sum(prices))


ZONES = {"local": 4, "national": 7, "abroad": 15}


def shipping_cost(
    zone: Annotated[str, choice("local", "national", "abroad", "abroad", "local", "national", "moon")],
    kilos: Count,
    express: Flag = False,
) -> int:
    """Price a parcel: a base per zone, 2 for each kilo beyond the first, doubled for express."""
    if zone not in ZONES:
        raise ValueError(f"unknown zone {zone}")
    cost = ZONES[zone] + 2 * max(0, kilos - 1)
    return cost * 2 if express else cost


def billable_weight(
    size: Annotated[tuple[int, int, int], tuple_of(between(1, 40), between(1, 40), between(1, 40))],
    grams: Big,
) -> int:
    """Return the larger of the real weight and the weight by volume."""
    length, width, height = size
    by_volume = length * width * height // 5
    return by_volume if by_volume > grams else grams


def parcel_loads(
    weights: Annotated[list[int], list_of(between(1, 9), 0, 8)], capacity: Annotated[int, between(9, 14)]
) -> list[int]:
    """Put each weight into the first parcel with room and return the loads."""
    loads: list[int] = []
    for weight in weights:
        for i, load in enumerate(loads):
            if load + weight <= capacity:
                loads[i] += weight
                break
        else:
            loads.append(weight)
    return loads


def reorder_list(stock: Annotated[dict[str, int], STOCK], minimum: Digit = 3) -> list[str]:
    """Name the goods with less than the minimum in stock, scarcest first."""
    low = [(amount, name) for name, amount in stock.items() if amount < minimum]
    return [name for _, name in sorted(low)]


def stock_after_delivery(
    stock: Annotated[dict[str, int], STOCK], delivery: Annotated[list[tuple[str, int]], ORDER]
) -> dict[str, int]:
    """Return the stock with delivered amounts added, without changing the input."""
    updated = dict(stock)
    for name, amount in delivery:
        updated[name] = updated.get(name, 0) + amount
    return updated


def can_fulfil(
    stock: Annotated[dict[str, int], dict_of(choice("pen", "cup"), between(2, 9), 1, 4)],
    order: Annotated[list[tuple[str, int]], list_of(tuple_of(choice("pen", "cup"), between(1, 4)), 0, 3)],
) -> bool:
    """Tell whether the stock covers all lines of an order together."""
    wanted: Counter[str] = Counter()
    for name, amount in order:
        wanted[name] += amount
    return all(stock.get(name, 0) >= amount for name, amount in wanted.items())


def shortages(
    stock: Annotated[dict[str, int], STOCK], order: Annotated[dict[str, int], STOCK]
) -> dict[str, int]:
    """Map each good to the amount by which the order exceeds the stock."""
    missing: dict[str, int] = {}
    for name in sorted(order):
        gap = order[name] - stock.get(name, 0)
        if gap > 0:
            missing[name] = gap
    return missing


def serve_in_turn(available: Count, orders: Naturals) -> list[int]:
    """Fill orders in turn from what is available and return the amount each one gets."""
    served: list[int] = []
    for wanted in orders:
        given = min(wanted, available)
        available -= given
        served.append(given)
    return served


def share_out_fairly(units: Annotated[int, between(0, 20)], wishes: Naturals) -> list[int]:
    """Hand out units one at a time in rounds until they or the wishes are used up."""
    given = [0] * len(wishes)
    while units > 0 and given != wishes:
        for i, wish in enumerate(wishes):
            if units > 0 and given[i] < wish:
                given[i] += 1
                units -= 1
    return given


def cost_of_goods_sold(layers: Pairs, sold: Annotated[int, between(0, 16)]) -> int:
    """Cost the sold units from the oldest (quantity, unit cost) layers first, up to 9 of them for free."""
    cost = 0
    for quantity, unit_cost in layers:
        taken = min(quantity, sold)
        cost += taken * unit_cost
        sold -= taken
        if sold == 0:
            break
    if sold > 9:
        raise ValueError("more units sold than bought")
    return cost


def average_unit_cost(purchases: Pairs) -> float:
    """Return the cost per unit over (quantity, unit cost) purchases, or 0.0 without units."""
    units = sum(quantity for quantity, _ in purchases)
    if units == 0:
        return 0.0
    return round(sum(quantity * cost for quantity, cost in purchases) / units, 2)


def invoice_number(year: Annotated[int, between(1990, 2040)], count: Annotated[int, between(0, 1200)]) -> str:
    """Build the number of the invoice after `count` others in a year."""
    return f"INV-{year % 100:02d}-{count + 1:04d}"


def price_label(
    cents: Annotated[int, between(-300000, 300000)], currency: Annotated[str, choice("$", "EUR ")] = "$"
) -> str:
    """Write cents as an amount, negative ones in parentheses."""
    whole, rest = divmod(abs(cents), 100)
    text = f"{currency}{whole}.{rest:02d}"
    return f"({text})" if cents < 0 else text


def cents_from_text(text: Annotated[str, PRICE_TEXT]) -> int:
    """Read an amount such as "-$1,250.5" as cents."""
    text = text.strip()
    negative = text.startswith("-")
    whole, _, rest = text.lstrip("-$").replace(",", "").partition(".")
    cents = int(whole) * 100 + int(rest.ljust(2, "0"))
    return -cents if negative else cents


def points_earned(spent: Annotated[int, between(0, 400)], member: Flag) -> int:
    """Give a point per 10 spent, twice for members, and 5 more for each full 100."""
    points = spent // 10
    if member:
        points *= 2
    return points + spent // 100 * 5


TIERS = [("platinum", 1000), ("gold", 500), ("silver", 100)]


def loyalty_tier(points: Annotated[int, between(0, 1200)], years: Digit = 0) -> str:
    """Name the tier of a customer; every full year counts as 50 points."""
    points += years * 50
    for name, needed in TIERS:
        if points >= needed:
            return name
    return "bronze"


def redeem_points(
    points: Annotated[int, between(0, 400)], price: Annotated[int, between(0, 60)]
) -> tuple[int, int]:
    """Turn blocks of 50 points into 5 off while the price allows; return points and price left."""
    while points >= 50 and price >= 5:
        points -= 50
        price -= 5
    return points, price


def three_for_two(prices: Annotated[list[int], PRICES]) -> int:
    """Sum prices where in each group of three, taken from the dearest, the cheapest is free."""
    ordered = sorted(prices, reverse=True)
    return sum(price for i, price in enumerate(ordered, 1) if i % 3 != 0)


def second_half_price(prices: Annotated[list[int], PRICES]) -> int:
    """Sum prices where every second item, as scanned, costs half, rounded up."""
    return sum(prices[::2]) + sum((price + 1) // 2 for price in prices[1::2])


def gross_pay(hours: Annotated[int, between(0, 70)], rate: Annotated[int, between(8, 40)]) -> int:
    """Pay hours beyond 40 at one and a half times the rate."""
    regular = min(hours, 40)
    overtime = hours - regular
    return regular * rate + overtime * rate * 3 // 2


def net_pay(
    gross: Big,
    deductions: Annotated[list[int], list_of(between(0, 900), 0, 4)],
    floor: Annotated[int, between(0, 600)] = 300,
) -> int:
    """Subtract deductions in order, leaving out each that would bring the pay below the floor."""
    for deduction in deductions:
        if gross - deduction >= floor:
            gross -= deduction
    return gross


def wages_by_worker(
    shifts: Annotated[
        list[tuple[str, int]], list_of(tuple_of(choice("Ada", "Bo", "Cy"), between(1, 9)), 0, 5)
    ],
    rate: Digit,
) -> dict[str, int]:
    """Add up pay per worker; hours beyond 6 in one shift count one extra."""
    wages: dict[str, int] = {}
    for worker, hours in shifts:
        paid = hours + 1 if hours > 6 else hours
        wages[worker] = wages.get(worker, 0) + paid * rate
    return wages


def sales_bonus(sales: Naturals, target: Digit = 5) -> int:
    """Pay 10 for each period at the target, and 5 more if the one before was there too."""
    bonus = 0
    before = False
    for amount in sales:
        reached = amount >= target
        if reached:
            bonus += 15 if before else 10
        before = reached
    return bonus


def margin_percent(cost: Annotated[int, between(0, 90)], price: Annotated[int, between(0, 120)]) -> int:
    """Return the profit as a percentage of the price, towards zero."""
    if price == 0:
        raise ValueError("price is zero")
    return int((price - cost) * 100 / price)


def charm_price(cost: Big, percent: Percent = 30) -> int:
    """Add a markup and go up to the next price that ends in 99."""
    price = cost * (100 + percent) // 100
    return price + (99 - price) % 100


def best_seller(sales: Annotated[list[tuple[str, int]], ORDER]) -> str | None:
    """Name what sold most in total, the first in the alphabet when equal."""
    sold: dict[str, int] = {}
    for name, amount in sales:
        sold[name] = sold.get(name, 0) + amount
    return min(sold, key=lambda name: (-sold[name], name)) if sold else None


def refund_amount(price: Big, days: Annotated[int, between(0, 40)], opened: Flag = False) -> int:
    """Refund all within 14 days, half within 30; opened goods lose a tenth."""
    if days > 30:
        return 0
    amount = price if days <= 14 else price // 2
    return amount - amount // 10 if opened else amount


def installments(total: Annotated[int, between(1, 900)], months: Annotated[int, between(1, 7)]) -> list[int]:
    """Split a total into equal monthly payments rounded up; the last one is what remains."""
    payment = (total + months - 1) // months
    plan: list[int] = []
    while total > 0:
        plan.append(min(payment, total))
        total -= plan[-1]
    return plan


def months_to_repay(
    debt: Annotated[int, between(0, 900)], payment: Annotated[int, between(5, 200)], percent: Digit = 2
) -> int:
    """Count monthly payments until a debt with monthly interest is gone, or -1 if it never is."""
    months = 0
    while debt > 0:
        debt += debt * percent // 100
        if payment >= debt:
            return months + 1
        debt -= payment
        months += 1
        if months > 120:
            return -1
    return months


def gain_of_all_rises(prices: Annotated[list[int], PRICES], fee: Annotated[int, between(0, 3)] = 0) -> int:
    """Sum all rises from one day to the next that are larger than a fee, less the fee."""
    gain = 0
    for i in range(1, len(prices)):
        rise = prices[i] - prices[i - 1]
        if rise > fee:
            gain += rise - fee
    return gain


def cheapest_offer(
    offers: Annotated[
        list[tuple[str, int, int]], list_of(tuple_of(WORD, between(5, 20), between(0, 9)), 0, 3)
    ],
) -> str:
    """Name the offer with the lowest price plus shipping; without offers, say "none"."""
    if not offers:
        return "none"
    name, _, _ = min(offers, key=lambda offer: offer[1] + offer[2])
    return name


def price_rises(
    old: Annotated[dict[str, int], dict_of(choice("pen", "cup"), between(1, 7), 1, 4)],
    new: Annotated[dict[str, int], dict_of(choice("pen", "cup", "mug"), between(2, 12), 1, 3)],
) -> list[str]:
    """Describe goods in both lists that became dearer, such as "pen +2"."""
    out: list[str] = []
    for name, price in sorted(new.items()):
        if name in old and price > old[name]:
            out.append(f"{name} +{price - old[name]}")
    return out


def merge_carts(
    first: Annotated[dict[str, int], STOCK], second: Annotated[dict[str, int], STOCK], limit: Digit = 8
) -> dict[str, int]:
    """Join two carts, adding amounts up to a limit per item and dropping empty ones."""
    merged = {
        name: min(limit, first.get(name, 0) + second.get(name, 0)) for name in sorted({*first, *second})
    }
    return {name: amount for name, amount in merged.items() if amount}


def item_check_digit(code: Annotated[str, CODE]) -> str:
    """Return the check digit of an item code: weights 2, 3, 4 ... from the right, modulo 11, "X" for 10."""
    total = 0
    for weight, digit in enumerate(reversed(code), start=2):
        total += weight * int(digit)
    check = -total % 11
    return "X" if check == 10 else str(check)


def order_status(paid: Flag, packed: Flag, sent: Flag, cancelled: Flag) -> str:
    """Describe where an order stands."""
    if cancelled:
        return "refund due" if paid and not sent else "cancelled"
    if not paid:
        return "on invoice" if sent else "awaiting payment"
    if sent:
        return "on its way"
    return "ready" if packed else "in preparation"


STEPS = {"new": ["pay", "cancel"], "pay": ["ship", "refund"], "ship": ["close", "refund"]}


def follow_order(
    events: Annotated[list[str], list_of(choice("pay", "pay", "ship", "cancel", "refund", "close"), 0, 4)],
) -> str:
    """Follow the events that an order allows in its state and return its last state."""
    state = "new"
    for event in events:
        if event in STEPS.get(state, []):
            state = event
    return state


def delivery_days(
    distance: Annotated[int, between(0, 900)], express: Flag, weekday: Annotated[int, between(0, 6)]
) -> int:
    """Count days on the road: one per 200 km or part of it, halved for express, two more from Friday on."""
    days = max(1, -(-distance // 200))
    if express:
        days = (days + 1) // 2
    return days + 2 if weekday >= 4 else days


def exchange(amount: Big, rate: Annotated[int, between(50, 200)], fee: Digit = 3) -> int:
    """Change an amount at a rate in hundredths after taking a fee in percent."""
    if amount <= 0:
        return 0
    after_fee = amount - amount * fee // 100
    return after_fee * rate // 100


def seats_price(adults: Digit, children: Digit, price: Positive = 12) -> int:
    """Price tickets: children pay half, and each adult takes one child along for free."""
    paying = max(0, children - adults)
    return adults * price + paying * (price // 2)


def subscription_cost(months: Annotated[int, between(0, 40)], monthly: Digit = 6) -> int:
    """Price a subscription: twelve months for the price of ten, the first month free."""
    if months == 0:
        return 0
    years, rest = divmod(months, 12)
    return (years * 10 + rest - 1) * monthly


def stock_value_change(
    before: Annotated[dict[str, int], STOCK], after: Annotated[dict[str, int], STOCK], price: Digit
) -> int:
    """Return the change of the value of all goods at one price per piece."""
    change = 0
    for name in before.keys() | after.keys():
        change += after.get(name, 0) - before.get(name, 0)
    return change * price


def price_range(prices: SomeInts, spread: Digit = 3) -> str:
    """Write the price range of offers as "5" or "from 3 to 9", ignoring those at or below zero."""
    real = [price for price in prices if price > 0]
    if not real:
        return "sold out"
    low, high = min(real), max(real)
    return str(low) if high - low < spread else f"from {low} to {high}"


def pallets_needed(
    items: Items, per_layer: Annotated[int, between(1, 4)] = 2, layers: Annotated[int, between(1, 3)] = 2
) -> int:
    """Count pallets when each kind of item starts a new pallet."""
    capacity = per_layer * layers
    pallets = 0
    for _, amount in items:
        pallets += amount // capacity
        if amount % capacity:
            pallets += 1
    return pallets


def balance_ledger(
    entries: Annotated[
        list[tuple[str, int]], list_of(tuple_of(choice("sale", "cost", "gift"), between(1, 30)), 0, 5)
    ],
) -> int:
    """Add sales and subtract costs; other entries do not count."""
    result = 0
    for kind, amount in entries:
        if kind == "sale":
            result += amount
        elif kind == "cost":
            result -= amount
    return result


def round_cash(cents: Big, step: Annotated[int, choice(5, 10, 20)] = 5) -> int:
    """Round cents to the nearest step, halves up."""
    return (cents + step // 2) // step * step


def settle_debts(
    paid: Annotated[dict[str, int], dict_of(choice("Ada", "Bo", "Cy"), between(0, 30), 1, 3)],
) -> dict[str, int]:
    """Say what each person gets back (or owes, below zero) for equal shares, rounded down."""
    share = sum(paid.values()) // len(paid)
    return {name: amount - share for name, amount in paid.items() if amount != share}


def depreciation(price: Big, years: Digit, life: Annotated[int, between(1, 9)] = 5, scrap: Count = 10) -> int:
    """Return the book value after some years of straight-line depreciation to a scrap value."""
    if price <= scrap or years >= life:
        return min(price, scrap)
    return price - (price - scrap) * years // life


def discount_label(old: Int, new: Int) -> str:
    """Write a price cut as "-25%", a rise as "new", no change as an empty text."""
    if old <= 0 or new > old:
        return "new"
    off = (old - new) * 100 // old
    return f"-{off}%" if off else ""


class Warehouse:
    """Amounts of goods, some of them reserved."""

    def __init__(self) -> None:
        self.stock: dict[str, int] = {}
        self.reserved: dict[str, int] = {}

    def receive(
        self, name: Annotated[str, choice("pen", "cup")], amount: Annotated[int, between(1, 9)]
    ) -> None:
        """Store goods."""
        self.stock[name] = self.stock.get(name, 0) + amount

    def free(self, name: Annotated[str, choice("pen", "cup")]) -> int:
        """Return what is in stock and not reserved."""
        return self.stock.get(name, 0) - self.reserved.get(name, 0)

    def reserve(
        self, name: Annotated[str, choice("pen", "cup")], amount: Annotated[int, between(1, 6)]
    ) -> bool:
        """Reserve goods if enough of them are free."""
        if amount > self.free(name):
            return False
        self.reserved[name] = self.reserved.get(name, 0) + amount
        return True

    def ship(self, name: Annotated[str, choice("pen", "cup")]) -> int:
        """Send off everything reserved and return how much that was."""
        amount = self.reserved.pop(name, 0)
        if amount:
            self.stock[name] -= amount
        return amount


class PunchCard:
    """A card with a free item for every few bought ones."""

    def __init__(self, size: Annotated[int, between(2, 4)]) -> None:
        self.size = size
        self.stamps = 0
        self.rewards = 0

    def buy(self, items: Annotated[int, between(1, 5)] = 1) -> None:
        """Stamp the card once per item; a full card becomes a reward."""
        self.stamps += items
        while self.stamps >= self.size:
            self.stamps -= self.size
            self.rewards += 1

    def redeem(self) -> bool:
        """Use a reward if there is one."""
        if self.rewards == 0:
            return False
        self.rewards -= 1
        return True

    def missing(self) -> int:
        """Count the stamps up to the next reward."""
        return self.size - self.stamps


class Auction:
    """Bids on one lot with a minimum step."""

    def __init__(
        self, start: Annotated[int, between(1, 10)], step: Annotated[int, between(1, 4)] = 2
    ) -> None:
        self.start = start
        self.step = step
        self.bids: list[tuple[str, int]] = []

    def minimum(self) -> int:
        """Return the lowest bid that would be taken now."""
        if not self.bids:
            return self.start
        return self.bids[-1][1] + self.step

    def bid(
        self, name: Annotated[str, choice("Ada", "Bo", "Cy")], amount: Annotated[int, between(1, 25)]
    ) -> bool:
        """Take a bid that is high enough and not from the leader."""
        if amount < self.minimum() or self.leader() == name:
            return False
        self.bids.append((name, amount))
        return True

    def leader(self) -> str | None:
        """Name who leads."""
        return self.bids[-1][0] if self.bids else None


class VendingMachine:
    """Sells one product for inserted coins."""

    def __init__(self, price: Annotated[int, between(3, 20)], stock: Annotated[int, between(0, 3)]) -> None:
        self.price = price
        self.stock = stock
        self.inserted = 0

    def insert(self, coin: Annotated[int, choice(1, 2, 5, 10, 20)]) -> None:
        """Take a coin of a known value while there is something to sell."""
        if coin in (1, 2, 5, 10) and self.stock > 0:
            self.inserted += coin

    def press(self) -> int | None:
        """Sell one piece and return the money left, or None if that is not possible."""
        if self.stock == 0 or self.inserted < self.price:
            return None
        self.stock -= 1
        rest, self.inserted = self.inserted - self.price, 0
        return rest

    def state(self) -> str:
        """Describe the machine on its display."""
        if self.stock == 0:
            return "empty"
        missing = self.price - self.inserted
        return f"insert {missing}" if missing > 0 else "press button"


class BackOrders:
    """Customers who wait for goods, served in order."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, int]] = deque()
        self.left = 0

    def order(
        self, name: Annotated[str, choice("Ada", "Bo", "Cy")], amount: Annotated[int, between(1, 5)]
    ) -> None:
        """Join the end of the queue."""
        self.waiting.append((name, amount))

    def deliver(self, amount: Annotated[int, between(1, 9)]) -> list[str]:
        """Serve full orders from the front and name who was served."""
        self.left += amount
        served: list[str] = []
        while self.waiting and self.waiting[0][1] <= self.left:
            name, wanted = self.waiting.popleft()
            self.left -= wanted
            served.append(name)
        return served

    def demand(self) -> int:
        """Return what is still missing for everyone who waits."""
        return max(0, sum(amount for _, amount in self.waiting) - self.left)
