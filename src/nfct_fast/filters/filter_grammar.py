"""Parse a filter: or, and, not, parentheses, and conditions of a key and values.

"not" binds tightest, then "and", then "or", as in Python. Conditions side by side are joined by "and", as by ss(8).
"""

from nfct_fast.filters import number_values
from nfct_fast.filters.expression import EITHER, Expression, all_of, any_of, negate
from nfct_fast.filters.filter_keys import ENDS, KEYS, condition
from nfct_fast.filters.filter_words import END, MARK, WORD, Word, cut
from nfct_fast.filters.number_values import did_you_mean

DEPTH_LIMIT = 50  # of parentheses
_OR, _AND, _NOT = {"or", "||"}, {"and", "&&"}, {"not", "!"}
_JOINING = _OR | _AND | _NOT
_OPERATORS = {"=": "=", "==": "=", "eq": "=", "!=": "!=", "ne": "!=", "neq": "!="}
_ORDERS = {"<": "<", "lt": "<", "<=": "<=", "le": "<=", ">": ">", "gt": ">", ">=": ">=", "ge": ">="}
_FIRST_WORDS = {name.split()[0] for name in KEYS}
_ALL_WORDS = [*{word for name in KEYS for word in name.split()}, *ENDS, *number_values.PROTOCOLS, *_JOINING]


def parse(text: str) -> Expression | None:
    """Return the expression that a filter stands for; None for blanks only. Raises FilterError."""
    words = cut(text)
    return _Parser(words).parse() if len(words) > 1 else None


class _Parser:
    def __init__(self, words):
        self._words = words
        self._at = 0
        self._depth = 0

    @property
    def _next(self) -> Word:
        return self._words[self._at]

    def _take(self) -> Word:
        word = self._words[self._at]
        self._at += word.kind != END
        return word

    def _is(self, known) -> bool:
        return self._next.kind in (WORD, MARK) and self._next.text.lower() in known

    def _took(self, known) -> bool:
        found = self._is(known)
        self._at += found
        return found

    def parse(self):
        result = self._any()
        if self._next.kind != END:
            raise self._next.error(f"unexpected {self._next} at column {self._next.column}")
        return result

    def _any(self):
        parts = [self._all()]
        while self._took(_OR):
            parts.append(self._all())
        return any_of(parts)

    def _all(self):
        parts = [self._negated()]
        while self._took(_AND) or not (self._next.kind == END or self._is(_OR | {")"})):
            parts.append(self._negated())
        return all_of(parts)

    def _negated(self):
        negated = False
        while self._took(_NOT):
            negated = not negated
        result = self._single()
        return negate(result) if negated else result

    def _single(self):
        opened = self._next
        if not self._took({"("}):
            return self._condition()
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise opened.error(f"more than {DEPTH_LIMIT} parentheses within each other at column {opened.column}")
        result = self._any()
        if not self._took({")"}):
            raise self._next.error(
                f"')' is missing at column {self._next.column}, for the '(' at column {opened.column}"
            )
        self._depth -= 1
        return result

    def _condition(self):
        first = self._take()
        if first.kind != WORD or first.text.lower() in _JOINING:
            raise first.error(f"a condition is missing before {first} at column {first.column}")
        ends = ENDS.get(first.text.lower(), EITHER)
        if ends != EITHER:
            first = self._take()
        name = self._key(first)
        if ends != EITHER and not (name in KEYS and KEYS[name].of_owner):
            raise first.error(
                f"owner and peer go before words such as uid or comm, not {first} at column {first.column}"
            )
        if name not in KEYS:
            return self._without_key(first, name)
        operator = self._operator(KEYS[name], name)
        expression = condition(KEYS[name], operator, self._values(name, operator), ends)
        return negate(expression) if operator == "!=" else expression

    def _key(self, first):
        """The longest key that begins with this word, its other words taken."""
        name = first.text.lower() if first.kind == WORD else ""
        while self._next.kind == WORD and f"{name} {self._next.text.lower()}" in KEYS:
            name = f"{name} {self._take().text.lower()}"
        return name

    def _without_key(self, word, name):
        """A protocol or a family by itself, as tcpdump has them."""
        if name in number_values.FAMILIES and not name.isdecimal():
            return number_values.families("=", [word], EITHER)
        if name in number_values.PROTOCOLS or "/" in name and name.split("/")[0] in number_values.FAMILIES:
            return number_values.protocols("=", [word], EITHER)
        if name in _FIRST_WORDS:
            raise self._next.error(
                f"after {name}, a word such as src or dport is missing at column {self._next.column}"
            )
        before = self._words[self._at - 2] if self._at > 1 else None
        hint = did_you_mean(name, _ALL_WORDS)
        if not hint and before is not None and before.kind != MARK and before.text.lower() not in _JOINING:
            hint = " (a list of values needs commas, a value with blanks quotes)"
        raise word.error(f"unknown word {word} at column {word.column}{hint}")

    def _operator(self, key, name):
        if self._took_operator(_OPERATORS):
            return _OPERATORS[self._words[self._at - 1].text.lower()]
        if self._took_operator(_ORDERS):
            word = self._words[self._at - 1]
            if not key.is_ordered:
                raise word.error(f"{name} has no order: {word} at column {word.column} can only be = or !=")
            return _ORDERS[word.text.lower()]
        return "="

    def _took_operator(self, known):
        # A word like "lt" may be a value as well, of a key with names: then nothing follows that could be one.
        following = self._words[min(self._at + 1, len(self._words) - 1)]
        is_word = self._next.kind == WORD
        if is_word and (following.kind == END or following.text.lower() in _JOINING | {")", ","}):
            return False
        return self._took(known)

    def _values(self, name, operator):
        opened = self._next if self._is({"{"}) else None
        self._took({"{"})
        values = [self._value(name)]
        while self._took({","}):
            values.append(self._value(name))
        if opened is not None and not self._took({"}"}):
            raise self._next.error(
                f"',' or '}}' is missing at column {self._next.column}, for the '{{' at column {opened.column}"
            )
        return values

    def _value(self, name):
        word = self._take()
        if word.kind in (MARK, END) or word.kind == WORD and word.text.lower() in _JOINING:
            raise word.error(f"a value of {name} is missing before {word} at column {word.column}")
        if not word.text:
            raise word.error(f"the value of {name} at column {word.column} is empty")
        return word
