"""Hides parts of command lines before anything leaves the process.

A process's command line is redacted once, by whoever takes its first flow, and kept with the process. Never by the
thread that reads: what a command line holds is chosen by its user, and searching it takes up to a millisecond.
"""
cimport cython
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from nfct_fast.processes.process cimport PROCESS_CMDLINE, process_build, process_drop, process_t, process_take

cdef extern from "nfct_fast/text/pattern.h" nogil:
    int pattern_room_make(pattern_room *room, int steps)
    int pattern_find(const pattern *pattern, pattern_room *room, const unsigned char *text, int32_t size, int32_t begin,
                     int is_cut, pattern_match *match)
    enum:
        STEP_SIZE "sizeof(struct pattern_step)"

cdef enum:
    # Steps of all searches per byte of a command line. The default patterns take about 20 on usual ones; 4,096 bytes
    # that use the budget up take 2 ms, and nothing of them is shown.
    STEPS_PER_BYTE = 60
    KEPT = 4096              # bytes of a redacted command line that are kept, at least
    MARKER_SIZE = 10

cdef const char *MARKER = b"[redacted]"

# Arguments end with a NUL. A secret goes on to the end of its argument: it may hold any character.
# Written by first letters: few ways to follow at each byte.
_NAMES = (r"(?:p(?:ass(?:w(?:or[dt]|d)|phrase)|wd|rivate[-_.]?key)|s(?:ecret|igning[-_.]?key)|token"
          r"|a(?:pi|ccess|uth)[-_.]?key|c(?:redential|onnection[-_.]?string)|encryption[-_.]?key)")


def _of_programs(names, options):
    # The first and the last such option of a program, with its value in the same argument or the next. The program may
    # be an argument of another one, as of sudo.
    return [rf"(?:^|[\0/])(?:{names})[\w.-]*\0(?:[^\0]*\0)*{lazy}(?:{options})(?P<secret>[^\0]+)"
            for lazy in ("", "?")]


DEFAULT_REDACTIONS = (
    # --password=..., --db-password ..., -token=..., and PASSWORD=..., "api_key": ..., ?token=...
    rf"(?i)(?:^|[\0\s\"'])--?[\w.-]*{_NAMES}[\w.-]*(?:=|\s)\s*(?P<secret>[^\0]+)",
    rf"(?i){_NAMES}[\w.-]*[\"'\]]*\s*[=:]\s*(?P<secret>[^\0]+)",
    # Programs that take a password by an option with another name.
    *_of_programs("mysql|mariadb", "-p"),
    *_of_programs("sshpass", r"-p\0?"),
    *_of_programs("redis-cli|valkey-cli", r"-a\0"),
    *_of_programs("ldap", r"-w\0?"),
    *_of_programs("docker|podman|skopeo|buildah|helm|oras|oc|az", r"login\0(?:[^\0]*\0)*-p\0?"),
    *_of_programs("curl|smbclient|rpcclient", r"(?:-[uU]|--user|--proxy-user)[=\0]?[^\0:%]*[:%]"),
    *_of_programs("openssl", r"pass:|-[kK]\0"),
    # HTTP headers that authenticate.
    r"(?i)(?:authorization|cookie|x-[\w-]*(?:token|key|auth|secret)[\w-]*)\s*:\s*(?P<secret>[^\0]+)",
    r"(?i)\b(?:bearer|basic)\s+(?P<secret>[\w+/=.~-]{8,})",
    # scheme://user:password@host
    r"(?i)[a-z][a-z0-9+.-]*://[^\0\s/:@]*:(?P<secret>[^\0\s/]+)@",
    # Keys that are known by their form: of AWS, GitHub, GitLab, Slack and others, JSON web tokens, private keys.
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b",
    r"\b(?:gh[opsur]_|github_pat_|glpat-|xox[abeoprs]-|sk-|rk_live_|sk_live_|AIza|npm_|pypi-|hf_|dop_v1_)[\w-]{16,}",
    r"\beyJ[\w-]+\.eyJ[\w-]+(?:\.[\w-]*)?",
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[^\0]*",
)


@cython.final
@cython.auto_pickle(False)
cdef class Redactor:
    """Shows processes without what must not be shown of their command lines.

    Args:
        patterns: regular expressions, see byte_patterns.compile_pattern(): what matches, or the group "secret" of it,
            becomes "[redacted]".
        hides: show no command lines at all.

    A command line whose search takes too long is replaced as a whole. Of one that was cut, what may have been the
    beginning of a match at its end is replaced as well.

    Raises ValueError for a bad pattern.
    """

    def __cinit__(self, patterns=(), bint hides=False):
        cdef pattern *one
        self._hides = hides
        self._programs = []
        if patterns:
            # Not above: it uses parts of `re` that are not promised for all times.
            from nfct_fast.text.byte_patterns import compile_pattern
            self._programs = [compile_pattern(text) for text in patterns]
        self._patterns = <pattern *>calloc(len(self._programs) + 1, sizeof(pattern))
        steps = max([len(program.steps) // STEP_SIZE for program in self._programs], default=1)
        if self._patterns == NULL or not pattern_room_make(&self._room, steps):
            raise MemoryError("redactor")
        for program in self._programs:
            one = &self._patterns[self._count]
            one.steps = <const pattern_step *><const char *><bytes>program.steps
            one.sets = <const unsigned char *><bytes>program.sets
            one.begins = <const unsigned char *><bytes>program.begins
            one.count = <int>(len(program.steps) // STEP_SIZE)
            one.is_anchored, one.has_secret = program.is_anchored, program.has_secret
            self._count += 1

    def __dealloc__(self):
        free(self._patterns)
        free(self._room.memory)

    cdef int _mark(self, const char *text, size_t size, bint is_cut, char *marks) noexcept nogil:
        """Mark each byte that must not be shown; return whether there are any."""
        cdef pattern_match match
        cdef int32_t at
        cdef int i, found
        cdef bint any = False
        self._room.budget = <int64_t>STEPS_PER_BYTE * <int64_t>(size + 64)
        for i in range(self._count):
            at = 0
            while at <= <int32_t>size:
                found = pattern_find(&self._patterns[i], &self._room, <const unsigned char *>text, <int32_t>size, at,
                                     is_cut, &match)
                if found < 0:
                    memset(marks, 1, size)
                    return True
                if match.unfinished >= 0:
                    memset(marks + match.unfinished, 1, size - match.unfinished)
                    any = True
                if found == 0:
                    break
                if match.end > match.begin:
                    memset(marks + match.begin, 1, match.end - match.begin)
                    any = True
                at = match.next
        return any

    cdef process_t *_redacted(self, process_t *process) noexcept nogil:
        """Return a copy to show, or `process` itself without another reference; NULL without memory."""
        cdef size_t size = process.cmdline.size
        cdef size_t room = max(size, <size_t>KEPT) + MARKER_SIZE
        cdef size_t at, written = 0
        cdef process_t facts
        cdef process_t *result
        cdef char *marks
        cdef char *out
        if not process.has & PROCESS_CMDLINE or size == 0:
            return process
        facts = process[0]
        if self._hides:
            facts.has &= ~<unsigned int>PROCESS_CMDLINE
            facts.cmdline.size = facts.cmdline_size = 0
            return process_build(&facts)
        marks = <char *>calloc(1, size + room)
        if marks == NULL:
            return NULL
        if not self._mark(process.cmdline.at, size, process.cmdline_size > size, marks):
            free(marks)
            return process
        out = marks + size
        for at in range(size):
            if not marks[at]:
                out[written] = process.cmdline.at[at]
                written += 1
            elif at == 0 or not marks[at - 1]:
                memcpy(out + written, MARKER, MARKER_SIZE)
                written += MARKER_SIZE
            if written > room - MARKER_SIZE:
                break
        facts.cmdline.at, facts.cmdline.size = out, min(written, room - MARKER_SIZE)
        # What was cut before stays cut, whatever became of its size.
        facts.cmdline_size = written + (process.cmdline_size - size)
        result = process_build(&facts)
        free(marks)
        return result

    cdef void show(self, process_t **process) noexcept nogil:
        cdef process_t *whole = process[0]
        if whole == NULL:
            return
        if whole.shown == NULL:
            whole.shown = self._redacted(whole)
            if whole.shown == NULL:         # without memory it is not shown at all
                process_drop(whole)
                process[0] = NULL
                return
        if whole.shown != whole:
            process[0] = process_take(whole.shown)
            process_drop(whole)

    def redacted(self, bytes cmdline not None, size_t cut=0) -> tuple | None:
        """Return a command line as it is shown, and the size that is told of it; None if it is not shown.

        cmdline: the arguments, with a NUL between two; cut: how many bytes behind it were cut off.
        """
        cdef process_t facts
        cdef process_t *process
        memset(&facts, 0, sizeof(facts))
        facts.has = PROCESS_CMDLINE
        facts.cmdline.at, facts.cmdline.size, facts.cmdline_size = cmdline, len(cmdline), len(cmdline) + cut
        process = process_build(&facts)
        self.show(&process)
        if process == NULL:
            raise MemoryError("redactor")
        try:
            if not process.has & PROCESS_CMDLINE:
                return None
            return process.cmdline.at[:process.cmdline.size], process.cmdline_size
        finally:
            process_drop(process)
