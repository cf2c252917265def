"""Decide which flows are wanted, in three steps of growing knowledge: in the kernel, before attribution, and after it.

Each step refuses only what all later ones would. What the kernel refuses costs nothing, what is refused without knowing
the owners costs no attribution.
"""
cimport cython
from nfct_fast.records.record cimport record_drop

from nfct_fast.filters.expression import (
    FALSE, TRUE, all_of, conditions, pair_condition, pair_set, possible_pairs, relaxed,
)
from nfct_fast.filters.filter_grammar import parse
from nfct_fast.filters.flow_program import FLOW_FIELDS
from nfct_fast.filters.kernel_filter import FIELDS, socket_filter
from nfct_fast.filters.wanted_protocols import wanted_protocols


def _program(expression, known=TRUE):
    return None if expression == known else FlowProgram(expression)


@cython.final
@cython.auto_pickle(False)
cdef class FlowFilter:
    """A filter, compiled.

    Args:
        protocol: A regular expression for names of protocols; None for all.
        filter: The filter, in the filter language; None for all.
        recover: Whether lost flows will be looked for in the conntrack table. Then the kernel must not judge by what
            changes while an entry lives: a flow whose event it refused would be taken for one whose event was lost.
        whole_flows: Whether flows are told at their end: nothing that changes counts before.

    Raises:
        FilterError: The filter cannot be read; the error says where.
        ValueError: The protocol cannot be read, or nothing can match.
    """

    def __cinit__(self, protocol=None, filter=None, bint recover=True, bint whole_flows=False):
        changing = {"mark"}
        if filter is not None and not isinstance(filter, str):
            raise TypeError(f"filter must be a str, not {type(filter).__name__}")
        parsed = parse(filter) if filter is not None else None
        of_protocol = wanted_protocols(protocol)
        self.expression = all_of([pair_condition(of_protocol), TRUE if parsed is None else parsed])
        pairs = possible_pairs(self.expression)
        if not pairs or self.expression == FALSE:
            raise ValueError("filter: no flow can match it, whatever its protocol is")
        self.protocols = pair_set(pairs)
        lasting = FIELDS - changing if recover or whole_flows else FIELDS
        self.socket_filter, heard = socket_filter(self.expression, lasting)
        early = FLOW_FIELDS - changing if whole_flows else FLOW_FIELDS
        possible = relaxed(self.expression, lambda condition: condition.field in early)
        self.heard = _program(heard)
        self.possible = _program(possible)
        self.wanted = _program(self.expression, possible)

    def uses(self, field) -> bool:
        """Whether a condition looks at a field, one of flow_program.FIELDS."""
        return any(condition.field == field for condition in conditions(self.expression))

    cdef bint is_heard(self, const flow_t *flow) noexcept nogil:
        return self.heard is None or self.heard.passes(flow, NULL)

    cdef bint may_be_wanted(self, const flow_t *flow) noexcept nogil:
        return self.possible is None or self.possible.passes(flow, NULL)

    cdef int keep_wanted(self, record_t *records, int count) noexcept nogil:
        cdef int kept = 0
        cdef int i
        if self.wanted is None:
            return count
        for i in range(count):
            if not self.wanted.passes(&records[i].flow, &records[i]):
                record_drop(&records[i])
                continue
            if kept != i:
                records[kept] = records[i]
            kept += 1
        return kept
