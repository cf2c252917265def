/* Names of event types (by EVENT_*), outcomes (by OUTCOME_*), directions (by DIRECTION_*) and marks (of SEEN_*). */
#ifndef NFCT_FAST_FLOW_LABELS_H
#define NFCT_FAST_FLOW_LABELS_H

static const char *const nfct_fast_event_names[] = {0, "NEW", "UPDATE", 0, "DESTROY", "FLOW", "ENTRY"};
static const char *const nfct_fast_outcome_names[] = {0, "answered", "unanswered", "refused", "reset", "timed_out"};
static const char *const nfct_fast_direction_names[] = {0, "out", "in", "local", "forward"};
static const char *const nfct_fast_first_seen_names[] = {
    0,
    "destination",
    "port",
    "destination,port",
    "roaming",
    "destination,roaming",
    "port,roaming",
    "destination,port,roaming",
    "scanning",
    "destination,scanning",
    "port,scanning",
    "destination,port,scanning",
    "roaming,scanning",
    "destination,roaming,scanning",
    "port,roaming,scanning",
    "destination,port,roaming,scanning",
};

#endif
