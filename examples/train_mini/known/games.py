"""Scores, boards, dice, cards, grids and turns."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from examples.train_mini.kinds import (
    Count,
    Digit,
    Draw,
    Flag,
    Name,
    Positive,
    Square,
    Word,
    Words,
    between,
    choice,
    list_of,
    tuple_of,
)

DIE: Draw = between(1, 6)
DICE: Draw = Draw(lambda rng: [rng.randint(1, rng.choice((3, 6, 6))) for _ in range(5)])
CARD: Draw = Draw(lambda rng: rng.choice("23456789TJQKA") + rng.choice("HSDC"))
HAND: Draw = Draw(
    lambda rng: [rng.choice(rng.choice(("29T", "JQKA", "45678"))) + rng.choice("HHS") for _ in range(5)]
)
CELL: Draw = tuple_of(between(0, 4), between(0, 4))
CHESS: Draw = Draw(lambda rng: rng.choice("abcdefgh") + rng.choice("12345678"))
MOVES: Draw = Draw(lambda rng: "".join(rng.choice("LRUDU") for _ in range(rng.randint(0, 8))))
RESULTS: Draw = Draw(lambda rng: "".join(rng.choice("WWDL") for _ in range(rng.randint(0, 8))))
MAZE: Draw = Draw(
    lambda rng: ["".join(rng.choice("...#") for _ in range(4)) for _ in range(rng.randint(1, 4))]
)
MINES: Draw = Draw(
    lambda rng: ["".join(rng.choice("..*") for _ in range(4)) for _ in range(rng.randint(1, 3))]
)
TILES: Draw = Draw(lambda rng: [rng.choice((0, 0, 2, 2, 4, 8)) for _ in range(4)])
SHORT_WORD: Draw = choice("apple", "paper", "grape", "pearl", "level", "eager", "apart")


def doubles_bonus(first: Annotated[int, DIE], second: Annotated[int, DIE]) -> int:
    """Score two dice: their sum, doubled when both are equal, 20 for two sixes."""
    if first == second == 6:
        return 20
    total = first + second
    return total * 2 if first == second else total


def upper_score(dice: Annotated[list[int], DICE], face: Annotated[int, DIE]) -> int:
    """Add up the dice that show a face, with 5 more when at least three do."""
    hits = dice.count(face)
    return hits * face + (5 if hits >= 3 else 0)


def is_full_house(
    dice: Annotated[list[int], Draw(lambda rng: sorted(rng.choice((1, 6)) for _ in range(5)))],
) -> bool:
    """Tell whether the dice are three of one face and two of another."""
    return sorted(Counter(dice).values()) == [2, 3]


def longest_straight(dice: Annotated[list[int], DICE]) -> int:
    """Return the length of the longest run of consecutive faces."""
    faces = set(dice)
    best = 0
    for face in faces:
        if face - 1 not in faces:
            end = face
            while end in faces:
                end += 1
            best = max(best, end - face)
    return best


def ones_and_fives(dice: Annotated[list[int], DICE]) -> int:
    """Score dice: three of a kind give 100 times the face (1000 for ones), other ones 100, other fives 50."""
    score = 0
    for face in range(1, 7):
        count = dice.count(face)
        if count >= 3:
            score += 1000 if face == 1 else face * 100
            count -= 3
        if face == 1:
            score += count * 100
        elif face == 5:
            score += count * 50
    return score


def keep_best_dice(
    rolls: Annotated[list[int], DICE], keep: Annotated[int, between(0, 4)] = 3, bonus: Digit = 0
) -> int:
    """Sum the highest dice and add a bonus, but never more than 18."""
    best = sorted(rolls)[::-1][:keep]
    return min(18, sum(best) + bonus)


def ways_to_roll(
    total: Annotated[int, between(1, 16)],
    dice: Annotated[int, between(1, 3)],
    sides: Annotated[int, between(2, 6)] = 6,
) -> int:
    """Count the ways in which some dice can show a total."""
    if dice == 0:
        return 1 if total == 0 else 0
    return sum(ways_to_roll(total - face, dice - 1, sides) for face in range(1, sides + 1) if face <= total)


def hand_value(
    cards: Annotated[list[str], list_of(choice("A", "2", "7", "9", "10", "J", "K", "A", "5"), 0, 5)],
) -> int:
    """Value a hand: faces count 10, aces 11 or 1 so that 21 is not passed if that is possible."""
    total = aces = 0
    for card in cards:
        if card == "A":
            aces += 1
            total += 11
        elif card in ("J", "Q", "K"):
            total += 10
        else:
            total += int(card)
    while total > 21 and aces > 0:
        total -= 10
        aces -= 1
    return total


RANKS = "23456789TJQKA"


def card_name(number: Annotated[int, between(0, 54)]) -> str:
    """Name a card by its number from 0 to 51, suit after suit; other numbers are jokers."""
    if number > 51:
        return "joker"
    suit, rank = divmod(number, len(RANKS))
    return RANKS[rank] + "CDHS"[suit]


def hand_kind(cards: Annotated[list[str], HAND]) -> str:
    """Name the best group of equal ranks in a hand."""
    counts = sorted(Counter(card[0] for card in cards).values(), reverse=True)
    if counts[0] >= 4:
        return "poker"
    if counts[0] == 3:
        return "full house" if counts[1] == 2 else "triple"
    if counts[0] == 2:
        return "two pairs" if counts[1] == 2 else "pair"
    return "high card"


def trick_winner(
    cards: Annotated[list[str], list_of(CARD, 2, 6)], trump: Annotated[str, choice("H", "S", "D")]
) -> int:
    """Return the position of the card that takes a trick: highest trump, else highest of the first suit."""

    def strength(card: str) -> int:
        power = RANKS.index(card[0])
        if card[1] == trump:
            return power + 26
        return power + 13 if card[1] == cards[0][1] else power

    return max(range(len(cards)), key=lambda i: strength(cards[i]))


def suit_counts(
    cards: Annotated[list[str], HAND], minimum: Annotated[int, between(1, 3)] = 1
) -> dict[str, int]:
    """Count the cards of each suit, leaving out suits with fewer than a minimum."""
    counts: dict[str, int] = {}
    for card in cards:
        counts[card[-1]] = counts.get(card[-1], 0) + 1
    return {suit: n for suit, n in sorted(counts.items()) if n >= minimum}


def highest_run(cards: Annotated[list[str], HAND]) -> str:
    """Return the highest two neighbouring ranks in a hand, or an empty text."""
    ranks = {card[0] for card in cards}
    for i in range(len(RANKS) - 2, -1, -1):
        if RANKS[i] in ranks and RANKS[i + 1] in ranks:
            return RANKS[i : i + 2]
    return ""


def deal_round(
    deck: Annotated[list[int], list_of(between(1, 13), 0, 8)],
    players: Annotated[int, between(1, 3)],
    each: Annotated[int, between(1, 3)] = 2,
) -> list[list[int]]:
    """Deal cards one at a time in turn until everyone has some or the deck is empty."""
    hands: list[list[int]] = [[] for _ in range(players)]
    for i, card in enumerate(deck[: players * each]):
        hands[i % players].append(card)
    return hands


def war_winner(
    first: Annotated[list[int], list_of(between(2, 9), 1, 4)],
    second: Annotated[list[int], list_of(between(2, 9), 1, 4)],
) -> str:
    """Play cards against each other; the higher one takes both and all pairs that were equal before."""
    wins = [0, 0]
    pot = 0
    for a, b in zip(first, second, strict=False):
        pot += 2
        if a != b:
            wins[0 if a > b else 1] += pot
            pot = 0
    return f"{wins[0]}:{wins[1]}" + ("*" if pot else "")


def tennis_call(server: Annotated[int, between(0, 6)], receiver: Annotated[int, between(0, 6)]) -> str:
    """Call the score of a tennis game from the points won."""
    if max(server, receiver) >= 4 and abs(server - receiver) >= 2:
        return "game server" if server > receiver else "game receiver"
    if server >= 3 and receiver >= 3:
        if server == receiver:
            return "deuce"
        return "advantage " + ("server" if server > receiver else "receiver")
    calls = ["love", "15", "30", "40"]
    return calls[server] + (" all" if server == receiver else "-" + calls[receiver])


def set_winner(games: Annotated[list[str], list_of(choice("A", "A", "B"), 4, 13)]) -> str | None:
    """Name who first wins six games with a lead of two, or seven; None if nobody does."""
    won = {"A": 0, "B": 0}
    for player in games:
        won[player] += 1
        lead = abs(won["A"] - won["B"])
        if won[player] == 7 or (won[player] >= 6 and lead >= 2):
            return f"{player} {won['A']}-{won['B']}"
    return None


def rating_after(
    rating: Annotated[int, between(800, 2400)], other: Annotated[int, between(800, 2400)], won: Flag
) -> int:
    """Move a rating by 16, plus or minus a 25th of the difference, at least by 1."""
    gap = (other - rating) // 25
    change = max(1, 16 + gap) if won else -max(1, 16 - gap)
    return rating + change


BEATS = {"rock": "scissors", "paper": "rock", "scissors": "paper"}


def duel_points(
    rounds: Annotated[
        list[tuple[str, str]],
        list_of(tuple_of(choice("rock", "paper", "scissors"), choice("rock", "paper", "scissors")), 0, 3),
    ],
) -> int:
    """Return the lead of the first player over some rounds of rock, paper, scissors."""
    lead = 0
    for mine, other in rounds:
        if BEATS[mine] == other:
            lead += 1
        elif mine != other:
            lead -= 1
    return lead


def hangman_view(
    word: Word,
    guesses: Annotated[str, choice("aeiou", "rst", "apl", "", "nmo", "elba")],
    lives: Annotated[int, between(1, 6)] = 4,
) -> str:
    """Show the guessed letters of a word, or the whole word when too many guesses were wrong."""
    wrong = sum(1 for guess in guesses if guess not in word)
    if wrong >= lives:
        return word.upper()
    return "".join(ch if ch in guesses else "_" for ch in word)


def bulls_and_cows(
    secret: Annotated[list[int], list_of(between(1, 4), 4, 4)],
    guess: Annotated[list[int], list_of(between(1, 4), 4, 4)],
) -> tuple[int, int]:
    """Count digits at the right place, and further right digits at the wrong place."""
    bulls = sum(a == b for a, b in zip(secret, guess, strict=True))
    common = sum(min(secret.count(digit), guess.count(digit)) for digit in set(guess))
    return bulls, common - bulls


def guess_marks(secret: Annotated[str, SHORT_WORD], guess: Annotated[str, SHORT_WORD]) -> str:
    """Mark letters of a guess: "+" right, "~" elsewhere in the word (each letter used once), "." wrong."""
    free = [a for a, b in zip(secret, guess, strict=True) if a != b]
    marks = ""
    for a, b in zip(secret, guess, strict=True):
        if a == b:
            marks += "+"
        elif b in free:
            free.remove(b)
            marks += "~"
        else:
            marks += "."
    return marks


LETTER_POINTS = {
    "q": 10,
    "z": 10,
    "j": 8,
    "x": 8,
    "k": 5,
    "w": 4,
    "y": 4,
    "v": 4,
    "b": 3,
    "m": 3,
    "p": 3,
    "d": 2,
    "g": 2,
}


def tile_word_score(
    word: Word, factor: Annotated[int, between(1, 3)] = 1, tiles: Annotated[int, between(4, 7)] = 6
) -> int:
    """Score a word of letter tiles times a factor, plus 50 when all tiles are used."""
    score = sum(LETTER_POINTS.get(letter, 1) for letter in word) * factor
    return score + 50 if len(word) >= tiles else score


JUMPS = {3: 11, 6: 17, 9: 4, 14: 2, 16: 8, 19: 7}


def ladder_position(
    rolls: Annotated[list[int], list_of(DIE, 0, 6)], last: Annotated[int, between(15, 24)] = 20
) -> int:
    """Move along a board with ladders and snakes; a roll beyond the last field does not count."""
    position = 0
    for roll in rolls:
        if position + roll > last:
            continue
        position += roll
        position = JUMPS.get(position, position)
    return position


def ludo_steps(rolls: Annotated[list[int], list_of(choice(1, 2, 3, 4, 5, 6, 6, 6), 1, 7)]) -> int:
    """Count steps after the first six; each six gives another roll that counts twice."""
    steps = 0
    started = doubled = False
    for roll in rolls:
        if started:
            steps += roll * 2 if doubled else roll
            doubled = roll == 6
        elif roll == 6:
            started = True
    return steps


def robot_position(moves: Annotated[str, MOVES], size: Annotated[int, between(1, 4)] = 2) -> tuple[int, int]:
    """Walk from the middle of a field whose walls stop steps beyond `size`."""
    x = y = 0
    for move in moves:
        if move == "L":
            x = max(x - 1, -size)
        elif move == "R":
            x = min(x + 1, size)
        elif move == "U":
            y = min(y + 1, size)
        elif move == "D":
            y = max(y - 1, -size)
    return x, y


def turtle_path(
    program: Annotated[
        str, Draw(lambda rng: "".join(rng.choice("FFFLRB") for _ in range(rng.randint(0, 8))))
    ],
) -> str:
    """Drive forward (F), back (B), turn left (L) or right (R); return the place and the direction."""
    x, y, facing = 0, 0, 0
    for command in program:
        if command == "L":
            facing = (facing - 1) % 4
        elif command == "R":
            facing = (facing + 1) % 4
        else:
            step = 1 if command == "F" else -1
            dx, dy = [(0, 1), (1, 0), (0, -1), (-1, 0)][facing]
            x += dx * step
            y += dy * step
    return f"{x},{y} {'NESW'[facing]}"


def knight_moves(square: Annotated[str, CHESS]) -> list[str]:
    """List the squares to which a knight can move."""
    column, row = ord(square[0]) - ord("a"), int(square[1]) - 1
    moves: list[str] = []
    for i, letter in enumerate("abcdefgh"):
        moves += [f"{letter}{j + 1}" for j in range(8) if abs(i - column) * abs(j - row) == 2]
    return moves


def queen_attacks(
    first: Annotated[tuple[int, int], CELL], second: Annotated[tuple[int, int], CELL], is_bishop: Flag = False
) -> bool:
    """Tell whether a queen (or bishop) on one field attacks another one."""
    dx, dy = abs(first[0] - second[0]), abs(first[1] - second[1])
    if dx == dy:
        return dx > 0
    return not is_bishop and (dx == 0 or dy == 0)


def king_steps(start: Annotated[str, CHESS], goal: Annotated[str, CHESS]) -> int:
    """Count the moves of a king from one square to another."""
    columns = abs(ord(start[0]) - ord(goal[0]))
    rows = abs(int(start[1]) - int(goal[1]))
    return max(columns, rows)


def square_color(square: Annotated[str, CHESS]) -> str:
    """Return the color of a chess square with its name."""
    column = "abcdefgh".index(square[0]) + 1
    color = "dark" if (column + int(square[1])) % 2 == 0 else "light"
    return f"{color} {square.upper()}"


def rook_reach(row: Annotated[str, Draw(lambda rng: "".join(rng.choice("...PpR") for _ in range(8)))]) -> int:
    """Count fields of a row which its first rook R can reach; it may take small letters and stops there."""
    at = row.find("R")
    if at < 0:
        return 0
    count = 0
    for way in (row[at + 1 :], row[:at][::-1]):
        for field in way:
            if field.isupper():
                break
            count += 1
            if field != ".":
                break
    return count


def material_lead(
    pieces: Annotated[
        str, Draw(lambda rng: "".join(rng.choice("PPpNnBbRrQqK") for _ in range(rng.randint(0, 9))))
    ],
) -> int:
    """Return the lead of white (capital letters) in pawns."""
    worth = {"p": 1, "n": 3, "b": 3, "r": 5, "q": 9}
    lead = 0
    for piece in pieces:
        value = worth.get(piece.lower(), 0)
        lead += value if piece.isupper() else -value
    return lead


def next_generation(
    cells: Annotated[str, Draw(lambda rng: "".join(rng.choice(".#") for _ in range(rng.randint(1, 9))))],
) -> str:
    """Step a row of cells: a cell lives if exactly one neighbour does; the ends have one neighbour less."""
    padded = f".{cells}."
    out = ""
    for i in range(1, len(padded) - 1):
        alive = (padded[i - 1] == "#") + (padded[i + 1] == "#")
        out += "#" if alive == 1 else "."
    return out


def mine_hints(field: Annotated[list[str], MINES]) -> list[str]:
    """Replace each free field "." by the number of mines "*" beside, above and below it."""
    hints: list[str] = []
    for i, row in enumerate(field):
        line = ""
        for j, cell in enumerate(row):
            if cell == "*":
                line += cell
                continue
            near = [row[j - 1] if j > 0 else "", row[j + 1 : j + 2]]
            near += [field[k][j] for k in (i - 1, i + 1) if 0 <= k < len(field)]
            line += str(near.count("*"))
        hints.append(line)
    return hints


def drop_disc(
    columns: Annotated[list[str], list_of(choice("", "x", "xo", "oxo", "oo"), 3, 3)],
    column: Annotated[int, between(0, 3)],
    disc: Annotated[str, choice("x", "o")],
    height: Annotated[int, between(2, 4)] = 3,
) -> list[str]:
    """Drop a disc into a column of a board, or into the next column with room to the right."""
    for i in range(column, len(columns)):
        if len(columns[i]) < height:
            return [*columns[:i], columns[i] + disc, *columns[i + 1 :]]
    return columns


def nim_move(heaps: Annotated[list[int], list_of(between(0, 7), 0, 4)]) -> tuple[int, int] | None:
    """Return (heap, number to take) that wins at nim, or None if no move does."""
    balance = 0
    for heap in heaps:
        balance ^= heap
    for i, heap in enumerate(heaps):
        if heap ^ balance < heap:
            return i, heap - (heap ^ balance)
    return None


def slide_left(tiles: Annotated[list[int], TILES]) -> list[int]:
    """Slide number tiles to the left, joining equal neighbours once, zeros being empty."""
    filled = [tile for tile in tiles if tile]
    row: list[int] = []
    i = 0
    while i < len(filled):
        if i + 1 < len(filled) and filled[i] == filled[i + 1]:
            row.append(filled[i] * 2)
            i += 2
        else:
            row.append(filled[i])
            i += 1
    return row + [0] * (len(tiles) - len(row))


def clear_triples(
    row: Annotated[
        str,
        Draw(lambda rng: "".join(rng.choice("aab") * rng.randint(1, 3) for _ in range(rng.randint(1, 4)))),
    ],
) -> str:
    """Take out three equal gems in a row again and again."""
    i = 0
    while i + 2 < len(row):
        if row[i] == row[i + 1] == row[i + 2]:
            row = row[:i] + row[i + 3 :]
            i = 0
        else:
            i += 1
    return row


def calls_until_full(
    card: Annotated[list[int], list_of(between(1, 6), 0, 3)],
    called: Annotated[list[int], list_of(between(1, 6), 0, 8)],
) -> int:
    """Return after how many called numbers a card is full, or -1."""
    missing = set(card)
    if not missing:
        return 0
    for count, number in enumerate(called, 1):
        missing.discard(number)
        if not missing:
            return count
    return -1


def league_points(results: Annotated[str, RESULTS], penalty: Digit = 0) -> int:
    """Give 3 points per win and 1 per draw, less a penalty, never below zero."""
    points = 3 * results.count("W") + results.count("D") - penalty
    return points if points > 0 else 0


def best_win_streak(results: Annotated[str, RESULTS]) -> int:
    """Return the most wins in a row; a draw does not end a streak but does not count."""
    best = streak = 0
    for result in results:
        if result == "W":
            streak += 1
            best = max(best, streak)
        elif result == "L":
            streak = 0
    return best


def standings(
    matches: Annotated[
        list[tuple[str, str, int, int]],
        list_of(tuple_of(choice("A", "B"), choice("C", "B", "D"), between(0, 4), between(0, 4)), 0, 4),
    ],
) -> dict[str, int]:
    """Map teams to points from (home, guest, goals, goals): 3 for a win, 1 for a draw."""
    table: dict[str, int] = {}
    for home, guest, scored, conceded in matches:
        if home == guest:
            continue
        table[home] = table.get(home, 0) + (3 if scored > conceded else 1 if scored == conceded else 0)
        table[guest] = table.get(guest, 0) + (3 if scored < conceded else 1 if scored == conceded else 0)
    return table


def darts_left(
    start: Annotated[int, between(20, 120)], throws: Annotated[list[int], list_of(between(1, 60), 0, 5)]
) -> int:
    """Count down from a start; a throw that leaves less than 2, other than 0, does not count."""
    left = start
    for throw in throws:
        rest = left - throw
        if rest == 0:
            return 0
        if rest >= 2:
            left = rest
    return left


def golf_term(strokes: Annotated[int, between(1, 9)], par: Annotated[int, between(3, 5)]) -> str:
    """Name a result on a hole."""
    if strokes == 1:
        return "ace"
    difference = strokes - par
    names = {-2: "eagle", -1: "birdie", 0: "par", 1: "bogey"}
    return names.get(difference, f"{difference:+d}")


def judges_score(
    marks: Annotated[list[int], list_of(between(0, 10), 0, 6)], difficulty: Annotated[int, between(1, 4)] = 1
) -> int:
    """Sum marks without the best and the worst one, if there are more than three, times the difficulty."""
    if len(marks) > 3:
        marks = sorted(marks)[1:-1]
    return sum(marks) * difficulty


def cheapest_descent(grid: Square) -> int:
    """Return the least sum of a way from the top row to the bottom, going straight or diagonally down."""
    costs = list(grid[0])
    for row in grid[1:]:
        costs = [value + min(costs[max(0, j - 1) : j + 2]) for j, value in enumerate(row)]
    return min(costs)


def ray_length(maze: Annotated[list[str], MAZE], column: Annotated[int, between(0, 3)]) -> int:
    """Return how many fields from the bottom up are free in a column."""
    length = 0
    for row in reversed(maze):
        if row[column] == "#":
            break
        length += 1
    return length


def is_magic(
    grid: Annotated[
        list[list[int]],
        Draw(
            lambda rng: rng.choice(
                (
                    [[2, 7, 6], [9, 5, 1], [4, 3, 8]],
                    [[1, 1], [1, 1]],
                    [[rng.randint(1, 2), 1], [1, rng.randint(1, 2)]],
                    [[1, 2, 3], [3, 1, 2], [2, 3, 1]],
                    [[rng.randint(1, 9)]],
                    [[8, 1, 6], [3, 5, 7], [4, 9, rng.randint(1, 2)]],
                )
            )
        ),
    ],
) -> int:
    """Return the common sum of all rows, columns and both diagonals, or 0 if they differ."""
    size = range(len(grid))
    sums = {sum(row) for row in grid} | {sum(grid[i][j] for i in size) for j in size}
    sums.add(sum(grid[i][i] for i in size))
    sums.add(sum(grid[i][-1 - i] for i in size))
    return sums.pop() if len(sums) == 1 else 0


def missing_digits(row: Annotated[list[int], list_of(choice(0, 0, 0, 1, 2, 3, 4), 3, 5)]) -> list[int] | None:
    """Return the digits missing in a puzzle row (0 is empty), or None if a digit stands there twice."""
    filled = [n for n in row if n != 0]
    if len(filled) != len(set(filled)):
        return None
    return [n for n in range(1, len(row) + 1) if n not in filled]


def press_lights(
    lights: Annotated[str, Draw(lambda rng: "".join(rng.choice("01") for _ in range(rng.randint(2, 7))))],
    pressed: Annotated[list[int], list_of(between(0, 6), 0, 3)],
) -> str:
    """Toggle each pressed light and its neighbours."""
    cells = [ch == "1" for ch in lights]
    for i in pressed:
        for j in (i - 1, i, i + 1):
            if 0 <= j < len(cells):
                cells[j] = not cells[j]
    return "".join("1" if cell else "0" for cell in cells)


def capture_line(
    row: Annotated[str, Draw(lambda rng: "".join(rng.choice("xoo.") for _ in range(rng.randint(2, 8))))],
    at: Annotated[int, between(0, 7)],
) -> str:
    """Put an "x" on a free field; a line of "o" to its right up to the next "x" turns to "x" as well."""
    if at >= len(row) or row[at] != ".":
        return row
    end = at + 1
    while end < len(row) and row[end] == "o":
        end += 1
    if end < len(row) and row[end] == "x":
        return row[:at] + "x" * (end - at) + row[end:]
    return row[:at] + "x" + row[at + 1 :]


def word_chain_error(
    words: Annotated[list[str], list_of(choice("apple", "egg", "goat", "tea", "ant", "tag"), 0, 5)],
) -> int:
    """Find the first word that repeats or does not begin with the last letter of the one before, or -1."""
    for i in range(1, len(words)):
        if words[i][0] != words[i - 1][-1] or words[i] in words[:i]:
            return i
    return -1


def count_off(limit: Annotated[int, between(1, 16)], digit: Annotated[int, between(2, 7)]) -> list[int]:
    """List numbers up to a limit that must be replaced by a clap: multiples and numbers with the digit."""
    return [n for n in range(1, limit + 1) if n % digit == 0 or str(digit) in str(n)]


def damage_dealt(attack: Positive, armor: Count, critical: Flag = False, shield: Digit = 0) -> int:
    """Return the damage of a hit: armor lowers it to 1 at least, critical hits double, shields take off."""
    damage = max(1, attack - armor)
    if critical:
        damage *= 2
    return max(0, damage - shield)


def level_for(
    experience: Annotated[int, between(0, 900)], first: Annotated[int, between(20, 60)] = 40
) -> tuple[int, int]:
    """Return the level and the experience within it when each level needs half more than the one before."""
    level, needed = 1, first
    while experience >= needed:
        experience -= needed
        needed += needed // 2
        level += 1
    return level, experience


def loot_share(loot: Words, heroes: Annotated[int, between(1, 3)]) -> list[int]:
    """Give each item, the longest name first, to the hero with the least letters; return letters per hero."""
    shares = [0] * heroes
    for item in sorted(loot, key=len, reverse=True):
        shares[shares.index(min(shares))] += len(item)
    return shares


def banner(
    name: Name, score: Annotated[int, between(0, 1500)], best: Annotated[int, between(0, 900)] = 500
) -> str:
    """Write a line for the screen after a game."""
    stars = "*" * min(3, score // 400)
    if score > best:
        return f"{name}: new record {score}{stars}"
    return f"{name}: {score}{stars} ({best - score} missing)"


class TurnOrder:
    """Whose turn it is, with a direction that can change."""

    def __init__(
        self, players: Annotated[list[str], Draw(lambda rng: ["Ada", "Bo", "Cy", "Di"][: rng.randint(2, 4)])]
    ) -> None:
        self.players = players
        self.at = 0
        self.direction = 1

    def play(self, steps: Annotated[int, between(1, 3)] = 1) -> None:
        """Go on to the next player, or skip some."""
        self.at = (self.at + steps * self.direction) % len(self.players)

    def turn_around(self) -> None:
        """Change the direction and go on; with two players the same one plays again."""
        self.direction = -self.direction
        if len(self.players) > 2:
            self.play()

    def current(self) -> str:
        """Name the player whose turn it is."""
        return self.players[self.at]

    def following(self) -> str:
        """Name the player after that."""
        return self.players[(self.at + self.direction) % len(self.players)]


class Hero:
    """A figure with health and potions."""

    def __init__(
        self, health: Annotated[int, between(5, 20)], potions: Annotated[int, between(0, 2)] = 1
    ) -> None:
        self.full = health
        self.health = health
        self.potions = potions

    def hit(self, damage: Annotated[int, between(1, 9)]) -> None:
        """Lose health, not below zero."""
        self.health = max(0, self.health - damage)

    def drink(self) -> None:
        """Drink a potion if alive: half of the full health back."""
        if self.potions > 0 and self.health > 0:
            self.potions -= 1
            self.health = min(self.full, self.health + self.full // 2)

    def status(self) -> str:
        """Describe the figure."""
        if self.health == 0:
            return "defeated"
        return f"{self.health}/{self.full}, {self.potions} left"


class CardPile:
    """A pile on which a card must be one higher or lower than the card below."""

    def __init__(self, first: Annotated[int, between(1, 13)]) -> None:
        self.cards = [first]

    def fits(self, card: Annotated[int, between(1, 13)]) -> bool:
        """Tell whether a card may be played; 13 and 1 are neighbours."""
        return abs(card - self.cards[-1]) in (1, 12)

    def play(self, card: Annotated[int, between(1, 13)]) -> bool:
        """Play a card if it fits."""
        if not self.fits(card):
            return False
        self.cards.append(card)
        return True

    def flip(self) -> None:
        """Turn the pile upside down."""
        self.cards.reverse()

    def push(self, card: Annotated[int, between(1, 13)]) -> None:
        """Put a joker with a value on the pile, unless that is on top already."""
        if self.cards[-1] != card:
            self.cards.append(card)

    def top(self) -> tuple[int, int]:
        """Return the top card and the number of cards."""
        return self.cards[-1], len(self.cards)


class Snake:
    """A snake on a small field that grows when it eats."""

    def __init__(self, size: Annotated[int, between(2, 4)] = 3) -> None:
        self.size = size
        self.body = [(0, 0)]

    def move(
        self, dx: Annotated[int, between(-1, 1)], dy: Annotated[int, between(-1, 1)], eats: Flag = False
    ) -> None:
        """Move the head, through the border to the other side; the tail follows unless the snake eats."""
        x, y = self.body[0]
        self.body.insert(0, ((x + dx) % self.size, (y + dy) % self.size))
        if not eats:
            self.body.pop()

    def head(self) -> tuple[int, int]:
        """Return the place of the head."""
        return self.body[0]

    def bites_itself(self) -> bool:
        """Tell whether the head is on the body."""
        return self.body[0] in self.body[1:]


class ComboMeter:
    """Counts hits in a row that multiply the points."""

    def __init__(self, step: Annotated[int, between(1, 3)] = 2) -> None:
        self.step = step
        self.combo = 0
        self.points = 0

    def hit(self, points: Annotated[int, between(1, 5)]) -> None:
        """Score points, once more for each `step` hits before in a row, at most four times."""
        self.points += points * min(4, 1 + self.combo // self.step)
        self.combo += 1

    def miss(self) -> None:
        """End the combo."""
        self.combo = 0

    def result(self) -> tuple[int, int]:
        """Return points and the current combo."""
        return self.points, self.combo


class FlipBoard:
    """Face-down pairs; two equal cards in a row stay open."""

    def __init__(self, cards: Annotated[str, choice("abab", "abba", "aabb", "abcabc")]) -> None:
        self.cards = cards
        self.open: set[int] = set()
        self.chosen: int | None = None
        self.tries = 0

    def flip(self, at: Annotated[int, between(0, 5)]) -> None:
        """Turn a card over; the second one ends a try."""
        at %= len(self.cards)
        if at in self.open or at == self.chosen:
            return
        if self.chosen is None:
            self.chosen = at
            return
        self.tries += 1
        if self.cards[at] == self.cards[self.chosen]:
            self.open |= {at, self.chosen}
        self.chosen = None

    def view(self) -> str:
        """Show the board, cards that are face down as "?"."""
        return "".join(
            card if i in self.open or i == self.chosen else "?" for i, card in enumerate(self.cards)
        )

    def count(self) -> int:
        """Count the tries made."""
        return self.tries


class Quiz:
    """Questions asked in turn, with a joker that passes one."""

    def __init__(
        self,
        answers: Annotated[
            str, Draw(lambda rng: "".join(rng.choice("abc") for _ in range(rng.randint(1, 4))))
        ],
    ) -> None:
        self.answers = answers
        self.asked = 0
        self.score = 0
        self.joker = True

    def answer(self, letter: Annotated[str, choice("a", "b", "c")]) -> None:
        """Answer the current question: 10 points, or 3 less for a wrong answer."""
        if self.asked < len(self.answers):
            self.score += 10 if self.answers[self.asked] == letter else -3
            self.asked += 1

    def skip(self) -> bool:
        """Use the joker if it is there and a question is open."""
        if not self.joker or self.asked >= len(self.answers):
            return False
        self.joker = False
        self.asked += 1
        return True

    def state(self) -> str:
        """Return the score and the questions left."""
        left = len(self.answers) - self.asked
        return f"{self.score} points, {left} to go" if left else f"{self.score} points in the end"
