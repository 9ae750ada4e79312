"""Minutes of the day, weekdays, shifts, calendars, durations, time slots and rooms, all as integers."""

from __future__ import annotations

import heapq
from collections import deque
from typing import Annotated

from examples.train_mini.kinds import (
    Big,
    Count,
    Digit,
    Draw,
    Flag,
    Ints,
    Month,
    Naturals,
    Positive,
    Year,
    between,
    choice,
    list_of,
    tuple_of,
)

MINUTE: Draw = between(0, 1439)
HOUR: Draw = between(0, 23)
DAY: Draw = between(0, 6)
CLOCK: Draw = Draw(lambda rng: f"{rng.randint(0, 24):02d}:{rng.randint(0, 61):02d}")
SLOT: Draw = Draw(lambda rng: (start := rng.randint(0, 20), start + rng.randint(1, 6)))
CLOSE_SLOT: Draw = Draw(lambda rng: (start := rng.randint(0, 8), start + rng.randint(2, 9)))
CLOSE_SLOTS: Draw = list_of(CLOSE_SLOT, 1, 5)
SLOTS: Draw = list_of(SLOT, 0, 5)
DAYS: Draw = Draw(lambda rng: sorted(rng.sample(range(1, 15), rng.randint(0, 7))))
TIMES: Draw = Draw(lambda rng: sorted(rng.randint(0, 40) for _ in range(rng.randint(0, 6))))


def minutes_of(clock: Annotated[str, CLOCK]) -> int:
    """Read "HH:MM" as minutes since midnight."""
    hours, minutes = (int(part) for part in clock.split(":"))
    if not 0 <= hours < 24 or not 0 <= minutes < 60:
        raise ValueError(f"no such time: {clock}")
    return hours * 60 + minutes


def clock_label(minutes: Annotated[int, between(-2000, 4000)]) -> str:
    """Write minutes since midnight as HH:MM, with "+1" or "-1" and so on for other days."""
    day, rest = divmod(minutes, 24 * 60)
    text = f"{rest // 60:02d}:{rest % 60:02d}"
    return text if day == 0 else f"{text} {day:+d}"


def twelve_hour_clock(hour: Annotated[int, HOUR], minute: Annotated[int, between(0, 59)] = 0) -> str:
    """Write a time as "3:05 pm"; noon and midnight by name."""
    if minute == 0 and hour % 12 == 0:
        return "noon" if hour == 12 else "midnight"
    suffix = "pm" if hour >= 12 else "am"
    return f"{hour % 12 or 12}:{minute:02d} {suffix}"


def shift_clock(
    hour: Annotated[int, HOUR],
    minute: Annotated[int, between(0, 59)],
    delta: Annotated[int, between(-300, 2000)],
) -> tuple[int, int, int]:
    """Move a time by minutes; return days moved, hour and minute."""
    total = hour * 60 + minute + delta
    days, rest = divmod(total, 1440)
    return days, rest // 60, rest % 60


def is_quiet_time(minute: Annotated[int, MINUTE], weekend: Flag = False) -> bool:
    """Tell whether it is night, or also the afternoon rest of a weekend."""
    if minute >= 22 * 60 or minute < 7 * 60:
        return True
    return weekend and 12 * 60 <= minute < 18 * 60


def in_window(hour: Annotated[int, HOUR], opens: Annotated[int, HOUR], closes: Annotated[int, HOUR]) -> bool:
    """Tell whether an hour lies in an opening window that may go past midnight."""
    if opens <= closes:
        return opens <= hour < closes
    return hour >= opens or hour < closes


def common_time(
    first: Annotated[tuple[int, int], CLOSE_SLOT], second: Annotated[tuple[int, int], CLOSE_SLOT]
) -> int:
    """Return how long two time slots run at the same time."""
    start = max(first[0], second[0])
    end = min(first[1], second[1])
    return max(0, end - start)


def double_bookings(slots: Annotated[list[tuple[int, int]], SLOTS]) -> int:
    """Count the pairs of slots that run at the same time."""
    count = 0
    for i, (start, end) in enumerate(slots):
        for other_start, other_end in slots[i + 1 :]:
            if start < other_end and other_start < end:
                count += 1
    return count


def free_gaps(
    busy: Annotated[list[tuple[int, int]], SLOTS],
    opens: Digit = 4,
    closes: Annotated[int, between(10, 26)] = 20,
) -> list[tuple[int, int]]:
    """Return the free times between opening and closing."""
    gaps: list[tuple[int, int]] = []
    free_from = opens
    for start, end in sorted(busy):
        if start >= closes:
            break
        if start > free_from:
            gaps.append((free_from, start))
        free_from = max(free_from, end)
    if free_from < closes:
        gaps.append((free_from, closes))
    return gaps


def most_meetings(slots: Annotated[list[tuple[int, int]], SLOTS]) -> list[tuple[int, int]]:
    """Choose as many slots as possible that do not touch each other's time, by earliest end."""
    chosen: list[tuple[int, int]] = []
    for start, end in sorted(slots, key=lambda slot: slot[1]):
        if not chosen or start >= chosen[-1][1]:
            chosen.append((start, end))
    return chosen


def earliest_start(busy: Annotated[list[tuple[int, int]], CLOSE_SLOTS], length: Digit = 2) -> int:
    """Return the first time from 0 on at which a meeting of some length fits."""
    start = 0
    for begin, end in sorted(busy):
        if begin - start >= length:
            break
        start = max(start, end)
    return start


WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def weekday_after(
    name: Annotated[str, choice("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "sun", "mon", "Day")],
    days: Annotated[int, between(-9, 30)],
) -> str:
    """Name the weekday some days after a weekday, or before it."""
    position = WEEKDAYS.index(name.capitalize())
    return WEEKDAYS[(position + days) % 7]


def days_to_weekday(
    today: Annotated[int, DAY], target: Annotated[int, DAY], tomorrow_at_least: Flag = False
) -> int:
    """Count days until a weekday; today counts as zero or as seven days."""
    days = (target - today) % 7
    return 7 if days == 0 and tomorrow_at_least else days


def add_months(year: Year, month: Month, count: Annotated[int, between(-30, 40)]) -> tuple[int, int]:
    """Move a month by a number of months."""
    index = year * 12 + month - 1 + count
    return index // 12, index % 12 + 1


def fiscal_quarter(year: Year, month: Month, start: Month = 4) -> str:
    """Name the quarter of a business year that begins in a month, after the year it ends in."""
    quarter = (month - start) % 12 // 3 + 1
    if month >= start > 1:
        year += 1
    return f"{year}Q{quarter}"


def season_name(month: Month, south: Flag = False) -> str:
    """Name the season of a month, of the other half of the earth if asked."""
    seasons = ["winter", "spring", "summer", "autumn"]
    index = month % 12 // 3
    return seasons[(index + 2) % 4] if south else seasons[index]


def next_departure(
    now: Annotated[int, between(0, 130)],
    first: Annotated[int, between(0, 30)],
    every: Annotated[int, between(4, 20)],
    last: Annotated[int, between(50, 110)] = 100,
) -> int | None:
    """Return the next departure at or after now, or None after the last one."""
    if now <= first:
        return first
    waits = -(-(now - first) // every)
    departure = first + waits * every
    return departure if departure <= last else None


def hourly_departures(
    minutes: Annotated[list[int], list_of(between(0, 59), 1, 3)], start: Digit, end: Count
) -> list[str]:
    """List the departures of each hour from `start` up to, not including, `end`."""
    times: list[str] = []
    for hour in range(start, min(end, start + 3)):
        times += [f"{hour}:{minute:02d}" for minute in sorted(set(minutes))]
    return times


def total_wait(arrivals: Annotated[list[int], TIMES], departures: Annotated[list[int], TIMES]) -> int:
    """Sum the waits of passengers who each take the first departure at or after arrival."""
    waited = 0
    i = 0
    for arrival in arrivals:
        while i < len(departures) and departures[i] < arrival:
            i += 1
        if i == len(departures):
            break
        waited += departures[i] - arrival
    return waited


def workdays_in_stretch(first_day: Annotated[int, DAY], length: Annotated[int, between(0, 25)]) -> int:
    """Count the days from Monday (0) to Friday in a stretch of days."""
    weeks, rest = divmod(length, 7)
    extra = sum((first_day + i) % 7 < 5 for i in range(rest))
    return weeks * 5 + extra


def days_for_work(first_day: Annotated[int, DAY], work: Count) -> int:
    """Count calendar days until some days of work are done, weekends being free."""
    days = 0
    while work > 0:
        if (first_day + days) % 7 not in (5, 6):
            work -= 1
        days += 1
    return days


def shift_minutes(
    start: Annotated[int, MINUTE], end: Annotated[int, MINUTE], pause: Annotated[int, between(0, 60)] = 30
) -> int:
    """Return the paid minutes of a shift that may pass midnight; only over 6 hours the pause is taken off."""
    length = (end - start) % 1440
    if length > 360:
        length -= pause
    return length


def clocked_minutes(stamps: Annotated[list[int], TIMES], now: Annotated[int, between(40, 60)] = 50) -> int:
    """Add the times between stamps in and out; a missing last stamp counts as now."""
    if len(stamps) % 2 == 1:
        stamps = [*stamps, now]
    return sum(stamps[1::2]) - sum(stamps[::2])


def billed_minutes(
    calls: Annotated[list[int], list_of(between(0, 130), 0, 5)],
    first: Annotated[int, choice(60, 30)] = 60,
    step: Annotated[int, choice(30, 10, 6)] = 30,
) -> int:
    """Bill calls in seconds: at least the first block, then whole steps; calls of 0 s are free."""
    billed = 0
    for seconds in calls:
        if seconds > first:
            billed += first + -(-(seconds - first) // step) * step
        elif seconds > 0:
            billed += first
    return billed


def nearest_quarter(minute: Annotated[int, MINUTE]) -> str:
    """Round minutes of the day to the nearest quarter of an hour and write the time."""
    rounded = (minute + 7) // 15 * 15 % 1440
    hours, rest = divmod(rounded, 60)
    return f"{hours}:{rest:02d}"


def pomodoro_phase(minute: Annotated[int, between(0, 300)]) -> str:
    """Name the phase: 25 minutes of work, then 5 of break, each fourth break 15 longer."""
    minute %= 4 * 30 + 15
    block, inside = divmod(minute, 30)
    if block < 4 and inside < 25:
        return f"work {block + 1}"
    return "long break" if block >= 3 else "break"


def program_stage(
    second: Annotated[int, between(0, 300)],
    phases: Annotated[
        list[tuple[str, int]],
        Draw(
            lambda rng: [
                ("wash", rng.randint(5, 40)),
                ("rinse", rng.randint(3, 9)),
                ("spin", rng.randint(5, 40)),
            ]
        ),
    ],
) -> str:
    """Name the stage of a machine that repeats its program without end."""
    second %= sum(length for _, length in phases)
    for name, length in phases:
        if second < length:
            return name
        second -= length
    return "off"


def day_chart(
    slots: Annotated[list[tuple[int, int]], SLOTS], hours: Annotated[int, between(6, 24)] = 12
) -> str:
    """Draw a day with a character per hour: "." free, "#" busy, "!" booked more than once."""
    chart: list[str] = []
    for hour in range(hours):
        booked = sum(1 for start, end in slots if start <= hour < end)
        chart.append(".#!"[min(booked, 2)])
    return "".join(chart)


def busiest_hour(minutes: Annotated[list[int], list_of(between(300, 700), 0, 7)]) -> int:
    """Return the hour with most calls, the later one when equal, or -1 without calls."""
    counts = [0] * 24
    for minute in minutes:
        counts[minute // 60] += 1
    best = max(counts)
    return max(hour for hour in range(24) if counts[hour] == best) if best else -1


def weekday_mask(
    names: Annotated[list[str], list_of(choice("Mon", "Tue", "Wed", "Fri", "Sun", "Day"), 0, 5)],
) -> int:
    """Encode weekdays as bits, Monday as 1; unknown names are skipped."""
    mask = 0
    for name in names:
        if name in WEEKDAYS:
            mask |= 1 << WEEKDAYS.index(name)
    return mask


def masked_days(mask: Annotated[int, between(0, 127)]) -> str:
    """Write the weekdays of a bit mask with a letter each, "-" for days that are off."""
    if mask & 127 == 127:
        return "daily"
    return "".join(letter if mask >> i & 1 else "-" for i, letter in enumerate("MTWTFSS"))


def alarm_hour(
    weekday: Annotated[int, DAY], holiday: Flag, early: Annotated[int, between(5, 8)] = 6, lie_in: Digit = 2
) -> int | None:
    """Say when an alarm rings: early, on Saturdays later, never on Sundays and weekday holidays."""
    if weekday == 6 or (holiday and weekday < 5):
        return None
    return early + lie_in if weekday == 5 else early


def short_rests(
    shifts: Annotated[list[tuple[int, int]], SLOTS], rest: Annotated[int, between(1, 6)] = 3
) -> list[int]:
    """Return the starts of shifts that begin too soon after the end of the shift before."""
    ordered = sorted(shifts)
    return [ordered[i][0] for i in range(1, len(ordered)) if ordered[i][0] - ordered[i - 1][1] < rest]


def longest_holiday(booked: Annotated[list[int], DAYS], last: Annotated[int, between(7, 20)] = 14) -> int:
    """Return the longest run of days from 1 to `last` that are not booked."""
    longest = 0
    previous = 0
    for day in [*booked, last + 1]:
        longest = max(longest, day - previous - 1)
        previous = day
    return longest


def day_ranges(days: Annotated[list[int], DAYS]) -> str:
    """Write sorted days as ranges such as "1-3,7"."""
    parts: list[str] = []
    i = 0
    while i < len(days):
        start = i
        while i + 1 < len(days) and days[i + 1] == days[i] + 1:
            i += 1
        parts.append(str(days[i]) if start == i else f"{days[start]}-{days[i]}")
        i += 1
    return ",".join(parts)


def assign_rooms(slots: Annotated[list[tuple[int, int]], SLOTS]) -> list[int]:
    """Give each slot, in order of start, the lowest room number that is free then."""
    ends: list[int] = []
    rooms: list[int] = []
    for start, end in sorted(slots):
        room = next((i for i, taken_until in enumerate(ends) if taken_until <= start), len(ends))
        if room == len(ends):
            ends.append(end)
        else:
            ends[room] = end
        rooms.append(room + 1)
    return rooms


def smallest_room(
    rooms: Annotated[
        list[tuple[str, int]], list_of(tuple_of(choice("A1", "A2", "B1", "B2"), between(2, 20)), 0, 5)
    ],
    people: Count,
    spare: Annotated[int, between(0, 3)] = 1,
) -> str | None:
    """Name the smallest room with seats for all people and some to spare."""
    fitting = [(seats, name) for name, seats in rooms if seats >= people + spare]
    return min(fitting)[1] if fitting else None


def worst_delay(
    tasks: Annotated[list[tuple[int, int]], list_of(tuple_of(between(1, 6), between(1, 12)), 0, 5)],
) -> int:
    """Do (length, deadline) tasks by deadline and return how late the latest one is."""
    now = delay = 0
    for length, deadline in sorted(tasks, key=lambda task: task[1]):
        now += length
        delay = max(delay, now - deadline)
    return delay


def on_time_tasks(
    tasks: Annotated[list[tuple[int, int]], list_of(tuple_of(between(1, 6), between(1, 12)), 0, 5)],
) -> int:
    """Return how many (length, deadline) tasks can be done in time, dropping the longest when late."""
    now = 0
    done: list[int] = []
    for length, deadline in sorted(tasks, key=lambda task: task[1]):
        heapq.heappush(done, -length)
        now += length
        if now > deadline:
            now += heapq.heappop(done)
    return len(done)


def time_sharing_order(
    jobs: Annotated[list[int], list_of(between(1, 9), 0, 5)], slice_length: Annotated[int, between(1, 4)] = 2
) -> list[int]:
    """Run jobs in turn for a slice of time each and return their numbers in the order of finishing."""
    queue = deque(enumerate(jobs, 1))
    finished: list[int] = []
    while queue:
        number, left = queue.popleft()
        if left > slice_length:
            queue.append((number, left - slice_length))
        else:
            finished.append(number)
    return finished


def average_queue_wait(jobs: Naturals, shortest_first: Flag = False) -> float:
    """Return how long jobs wait on average when done one after the other."""
    if not jobs:
        return 0.0
    waited = clock = 0
    for length in sorted(jobs) if shortest_first else jobs:
        waited += clock
        clock += length
    return round(waited / len(jobs), 1)


def team_finish(tasks: Naturals, workers: Annotated[int, between(1, 3)] = 2) -> int:
    """Give each task to the worker who is free first and return when all is done."""
    free_at = [0] * workers
    for length in tasks:
        i = free_at.index(min(free_at))
        free_at[i] += length
    return max(free_at)


def oven_time(
    dishes: Annotated[str, Draw(lambda rng: "".join(rng.choice("aab") for _ in range(rng.randint(0, 7))))],
    pause: Annotated[int, between(1, 4)] = 2,
) -> int:
    """Return the time for dishes in order, one unit each, with a pause before the same dish again."""
    ready: dict[str, int] = {}
    clock = 0
    for dish in dishes:
        clock = max(clock, ready.get(dish, 0)) + 1
        ready[dish] = clock + pause
    return clock


def city_time(
    hour: Annotated[int, HOUR], home: Annotated[int, between(-11, 12)], away: Annotated[int, between(-11, 12)]
) -> str:
    """Write the hour in another time zone, saying whether it is another day there."""
    local = hour - home + away
    if local < 0:
        return f"{local + 24}h the day before"
    return f"{local - 24}h the day after" if local >= 24 else f"{local}h"


def dose_hours(first: Annotated[int, HOUR], doses: Annotated[int, between(1, 6)]) -> list[int]:
    """Spread the doses of a day evenly and return their hours in order of the clock."""
    gap = 24 // doses
    return sorted((first + i * gap) % 24 for i in range(doses))


def lap_times(splits: Annotated[list[int], TIMES]) -> list[int]:
    """Return the time of each lap from the times at which laps ended, leaving out laps of no time."""
    return [now - before for before, now in zip([0, *splits], splits, strict=False) if now > before]


def idle_minutes(busy: Annotated[list[tuple[int, int]], SLOTS]) -> int:
    """Return the time between the first start and the last end in which nothing runs."""
    if not busy:
        return 0
    first = min(start for start, _ in busy)
    last = max(end for _, end in busy)
    return sum(1 for t in range(first, last) if not any(start <= t < end for start, end in busy))


def split_shift(
    start: Digit, length: Positive, longest: Annotated[int, between(2, 9)] = 8
) -> list[tuple[int, int]]:
    """Cut a stretch of hours into shifts no longer than allowed, all but the last of full length."""
    shifts: list[tuple[int, int]] = []
    end = start + length
    while start < end:
        stop = min(start + longest, end)
        shifts.append((start, stop))
        start = stop
    return shifts


def project_end(
    start: Digit, parts: Annotated[list[list[int]], list_of(list_of(between(1, 9), 1, 3), 0, 4)]
) -> int:
    """Return the end of a project whose stages follow each other, tasks of a stage being done at once."""
    day = start
    for stage in parts:
        day += max(stage)
        if len(stage) > 2:
            day += 1
    return day


def leap_second_clock(ticks: Big, faulty: Annotated[int, between(0, 9)] = 3) -> int:
    """Return the minutes shown by a clock that loses some seconds in every hour."""
    hours = ticks // 3600
    return (ticks - hours * faulty) // 60


def snoozed_until(alarm: Annotated[int, MINUTE], presses: Ints, snooze: Digit = 9) -> int:
    """Move an alarm by a snooze time for each press that comes within a minute after it rings."""
    ring = alarm
    for press in presses:
        if 0 <= press <= 1:
            ring += snooze
    return ring % 1440


def week_hours(days: Annotated[list[str], list_of(choice("8", "6", "7.5", "off", "ill"), 0, 6)]) -> float:
    """Add the hours of a week; days of illness count as 7.5 hours."""
    total = 0.0
    for entry in days:
        if entry == "ill":
            total += 7.5
        elif entry != "off":
            total += float(entry)
    return total


class RoomCalendar:
    """Bookings of one room that must not overlap."""

    def __init__(self) -> None:
        self.bookings: list[tuple[int, int]] = []

    def book(self, start: Annotated[int, between(0, 9)], length: Annotated[int, between(1, 4)]) -> bool:
        """Book the room if it is free all the time."""
        end = start + length
        if any(start < other_end and other_start < end for other_start, other_end in self.bookings):
            return False
        self.bookings.append((start, end))
        return True

    def free_at(self, hour: Annotated[int, between(0, 12)]) -> bool:
        """Tell whether nobody uses the room in an hour."""
        return all(not start <= hour < end for start, end in self.bookings)

    def booked_hours(self) -> int:
        """Add up the length of all bookings."""
        return sum(end - start for start, end in self.bookings)


class Stopwatch:
    """Adds up running times from clock readings."""

    def __init__(self) -> None:
        self.started: int | None = None
        self.elapsed = 0

    def press(self, now: Annotated[int, between(0, 40)]) -> None:
        """Start the watch, or stop it when it runs."""
        if self.started is None:
            self.started = now
        else:
            self.elapsed += max(0, now - self.started)
            self.started = None

    def read(self, now: Annotated[int, between(20, 60)]) -> int:
        """Return the running time up to now."""
        if self.started is None:
            return self.elapsed
        return self.elapsed + max(0, now - self.started)


class WeekPlan:
    """Tasks by weekday with a limit per day."""

    def __init__(self, limit: Annotated[int, between(1, 2)] = 2) -> None:
        self.limit = limit
        self.days: list[list[str]] = [[] for _ in range(7)]

    def add(
        self, day: Annotated[int, between(4, 6)], task: Annotated[str, choice("cook", "run", "read")]
    ) -> None:
        """Put a task on a day, or on the next day with room."""
        for shift in range(7):
            tasks = self.days[(day + shift) % 7]
            if len(tasks) < self.limit:
                tasks.append(task)
                return

    def tasks(self, day: Annotated[int, between(4, 7)]) -> list[str]:
        """Return the tasks of a day; day 7 is the first day again."""
        return self.days[day % 7]

    def free_days(self) -> int:
        """Count days without tasks."""
        return sum(not tasks for tasks in self.days)


class Reminders:
    """Notes that become due on a day."""

    def __init__(self) -> None:
        self.notes: list[tuple[int, str]] = []

    def remind(
        self,
        day: Annotated[int, between(1, 9)],
        note: Annotated[str, choice("call", "pay", "write")],
        repeat: Annotated[int, between(0, 3)] = 0,
    ) -> None:
        """Add a note, and again a week later for each repeat."""
        for week in range(repeat + 1):
            self.notes.append((day + 7 * week, note))

    def due(self, day: Annotated[int, between(1, 20)]) -> list[str]:
        """Return and forget the notes due up to a day, the oldest first."""
        due = sorted(entry for entry in self.notes if entry[0] <= day)
        self.notes = [entry for entry in self.notes if entry[0] > day]
        return [note for _, note in due]

    def next_day(self) -> int | None:
        """Return the day of the next note."""
        return min((day for day, _ in self.notes), default=None)


class Countdown:
    """A timer that can be paused and extended."""

    def __init__(self, seconds: Annotated[int, between(3, 20)]) -> None:
        self.left = seconds
        self.paused = False

    def tick(self, seconds: Annotated[int, between(1, 6)] = 1) -> None:
        """Let time pass, unless the timer is paused."""
        if not self.paused:
            self.left = max(0, self.left - seconds)

    def toggle(self) -> None:
        """Pause the timer or go on."""
        self.paused = not self.paused

    def extend(self, seconds: Digit) -> None:
        """Add time if the timer has not run out."""
        if self.left > 0:
            self.left += seconds

    def show(self) -> str:
        """Describe the timer."""
        if self.left == 0:
            return "over"
        return f"{self.left} (paused)" if self.paused else str(self.left)


class LeaveBook:
    """Vacation days of one person; unused days of a year are kept in part."""

    def __init__(
        self, yearly: Annotated[int, between(5, 30)], keep: Annotated[int, between(0, 9)] = 5
    ) -> None:
        self.yearly = yearly
        self.keep = keep
        self.left = yearly

    def take(self, days: Annotated[int, between(1, 15)]) -> bool:
        """Take days off if that many are left."""
        if days > self.left:
            return False
        self.left -= days
        return True

    def new_year(self) -> None:
        """Add the days of a new year to what may be kept."""
        self.left = min(self.left, self.keep) + self.yearly

    def days_left(self) -> int:
        """Return the days left."""
        return self.left


class ParkingMeter:
    """Sells parking time for coins, up to a maximum."""

    def __init__(
        self,
        minutes_per_coin: Annotated[int, between(5, 20)] = 10,
        longest: Annotated[int, between(30, 90)] = 60,
    ) -> None:
        self.minutes_per_coin = minutes_per_coin
        self.longest = longest
        self.paid_until = 0

    def pay(self, now: Annotated[int, between(0, 60)], coins: Annotated[int, between(1, 5)]) -> None:
        """Add time from now on, or from the end of the time already paid."""
        start = max(now, self.paid_until)
        self.paid_until = min(start + coins * self.minutes_per_coin, now + self.longest)

    def left(self, now: Annotated[int, between(0, 90)]) -> int:
        """Return the minutes left."""
        return max(0, self.paid_until - now)
