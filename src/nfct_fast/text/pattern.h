/* Searches bytes with a regular expression that byte_patterns.py has compiled, in linear time: all ways to match are
 * followed at once (Pike's algorithm), so there is no text on which the search backtracks. It finds what Python's re
 * finds. A budget bounds the search nevertheless: finding all matches of an unlucky expression is quadratic.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef NFCT_FAST_PATTERN_H
#define NFCT_FAST_PATTERN_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATTERN_BYTES,   /* go on to the next step with a byte of the set `first` */
    PATTERN_SPLIT,   /* go on at the step `first`, or else at `second` */
    PATTERN_JUMP,    /* go on at the step `first` */
    PATTERN_SAVE,    /* note where the secret begins (`first` is 0) or ends (1) */
    PATTERN_BEGIN,   /* only at the beginning of the text */
    PATTERN_END,     /* only at its end */
    PATTERN_EDGE,    /* only at the edge of a word */
    PATTERN_NO_EDGE, /* only elsewhere */
    PATTERN_MATCH,
};

struct pattern_step {
    uint16_t what, first, second;
};

struct pattern {
    const struct pattern_step *steps;
    const unsigned char *sets;   /* of bytes: 32 bytes each, a bit for each byte */
    const unsigned char *begins; /* for each byte that a match can begin with, 32 bytes: a bit for each next byte */
    int count;                   /* of steps */
    int is_anchored;             /* matches only at the beginning of the text */
    int has_secret;              /* only what PATTERN_SAVE notes is meant, not the whole match */
};

/* One way to match: where it began, and where in it the secret began and ended; -1: not yet. */
struct pattern_thread {
    int32_t start, secret, secret_end;
    uint16_t at;
};

struct pattern_threads {
    struct pattern_thread *threads; /* by preference */
    uint16_t *places;               /* of each step in `threads`; anything if it is not there */
    int count;
};

struct pattern_room {
    struct pattern_threads now, next;
    struct pattern_thread *stack;
    void *memory;
    int64_t budget; /* steps that may still be taken */
};

/* What a search found. */
struct pattern_match {
    int32_t begin, end; /* what is meant */
    int32_t next;       /* where to search for the next match */
    int32_t unfinished; /* of a text that was cut: where something begins that may go on behind the cut; -1 */
};

/* Room for patterns of up to `steps` steps; 0 without memory. */
static inline int pattern_room_make(struct pattern_room *room, int steps)
{
    size_t threads = (size_t)steps * sizeof(struct pattern_thread), places = (size_t)steps * sizeof(uint16_t);
    char *memory = calloc(1, 3 * threads + 2 * places);
    if (memory == NULL)
        return 0;
    room->memory = memory;
    room->now.threads = (struct pattern_thread *)(void *)memory;
    room->next.threads = room->now.threads + steps;
    room->stack = room->next.threads + steps;
    room->now.places = (uint16_t *)(void *)(room->stack + steps);
    room->next.places = room->now.places + steps;
    return 1;
}

static inline int pattern_has(const unsigned char set[32], unsigned char byte)
{
    return set[byte >> 3] >> (byte & 7) & 1;
}

/* Whether a match may begin at `at`, by the next two bytes: that spares most texts nearly all the work. */
static inline int pattern_may_begin(const struct pattern *pattern, const unsigned char *text, int32_t size, int32_t at)
{
    return at + 1 >= size || pattern_has(pattern->begins + 32 * text[at], text[at + 1]);
}

static inline int pattern_is_word(unsigned char byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || byte == '_';
}

static inline int pattern_holds(int what, const unsigned char *text, int32_t size, int32_t at)
{
    int edge;
    if (what == PATTERN_BEGIN)
        return at == 0;
    if (what == PATTERN_END)
        return at == size;
    edge = (at > 0 && pattern_is_word(text[at - 1])) != (at < size && pattern_is_word(text[at]));
    return what == PATTERN_EDGE ? edge : !edge;
}

/* Adds a thread, and those it splits into, that wait for the byte at `at` or have matched. */
static inline void pattern_add(const struct pattern *pattern, struct pattern_room *room, struct pattern_threads *to,
                               struct pattern_thread thread, const unsigned char *text, int32_t size, int32_t at)
{
    int depth = 0;
    for (;;) {
        const struct pattern_step *step = &pattern->steps[thread.at];
        int place = to->places[thread.at], is_over = 1;
        room->budget--;
        if (place >= to->count || to->threads[place].at != thread.at) {
            /* Each step is added once, steps that consume nothing too: so no loop is endless, the stack is bounded. */
            to->places[thread.at] = (uint16_t)to->count;
            to->threads[to->count++] = thread;
            is_over = 0;
            switch (step->what) {
            case PATTERN_BYTES:
            case PATTERN_MATCH:
                is_over = 1;
                break;
            case PATTERN_SPLIT:
                room->stack[depth] = thread;
                room->stack[depth++].at = step->second;
                thread.at = step->first;
                break;
            case PATTERN_JUMP:
                thread.at = step->first;
                break;
            case PATTERN_SAVE:
                if (step->first)
                    thread.secret_end = at;
                else
                    thread.secret = at;
                thread.at++;
                break;
            default:
                is_over = !pattern_holds(step->what, text, size, at);
                thread.at++;
            }
        }
        if (is_over) {
            if (depth == 0)
                return;
            thread = room->stack[--depth];
        }
    }
}

/* Where at the end of a text that was cut a preferred match may go on, the leftmost; -1: nowhere. */
static inline int32_t pattern_unfinished(const struct pattern *pattern, const struct pattern_threads *threads,
                                         int32_t size)
{
    int32_t leftmost = -1;
    for (int i = 0; i < threads->count; i++) {
        const struct pattern_thread *thread = &threads->threads[i];
        int32_t from = pattern->has_secret ? thread->secret : thread->start;
        int what = pattern->steps[thread->at].what;
        if (what == PATTERN_MATCH)
            break;
        if ((what == PATTERN_BYTES || what == PATTERN_END) && thread->start < size && from >= 0 &&
            (leftmost < 0 || from < leftmost))
            leftmost = from;
    }
    return leftmost;
}

/* Searches text[from..size): 1 if there is a match, 0 if not, -1 if the budget is used up. */
static inline int pattern_find(const struct pattern *pattern, struct pattern_room *room, const unsigned char *text,
                               int32_t size, int32_t from, int is_cut, struct pattern_match *match)
{
    struct pattern_thread best = {0, -1, -1, 0};
    int found = 0;
    match->unfinished = -1;
    room->now.count = 0;
    for (int32_t at = from;; at++) {
        struct pattern_threads swap;
        if (!found && (at == 0 || !pattern->is_anchored)) {
            struct pattern_thread fresh = {at, -1, -1, 0};
            if (room->now.count == 0 && !pattern->is_anchored)
                while (!pattern_may_begin(pattern, text, size, at))
                    fresh.start = ++at;
            if (pattern_may_begin(pattern, text, size, at))
                pattern_add(pattern, room, &room->now, fresh, text, size, at);
        }
        if (room->budget < 0)
            return -1;
        if (at == size && is_cut)
            match->unfinished = pattern_unfinished(pattern, &room->now, size);
        room->next.count = 0;
        for (int i = 0; i < room->now.count; i++) {
            struct pattern_thread thread = room->now.threads[i];
            const struct pattern_step *step = &pattern->steps[thread.at];
            if (step->what == PATTERN_MATCH && at > thread.start) { /* to match nothing says nothing */
                best = thread;
                match->next = at;
                found = 1;
                break; /* those behind it are less preferred */
            }
            if (step->what == PATTERN_BYTES && at < size && pattern_has(pattern->sets + 32 * step->first, text[at])) {
                thread.at++;
                pattern_add(pattern, room, &room->next, thread, text, size, at + 1);
            }
        }
        if (at >= size || (room->next.count == 0 && (found || pattern->is_anchored)))
            break;
        swap = room->now;
        room->now = room->next;
        room->next = swap;
    }
    if (!found)
        return 0;
    match->begin = best.start;
    match->end = match->next;
    if (pattern->has_secret && best.secret >= 0 && best.secret_end >= best.secret) {
        match->begin = best.secret;
        match->end = best.secret_end;
    }
    return 1;
}

#endif
