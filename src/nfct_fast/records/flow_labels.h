/* Names of event types (by EVENT_*) and of directions (by DIRECTION_*). */
#ifndef NFCT_FAST_FLOW_LABELS_H
#define NFCT_FAST_FLOW_LABELS_H

static const char *const nfct_fast_event_names[] = {0, "NEW", "UPDATE", 0, "DESTROY"};
static const char *const nfct_fast_direction_names[] = {0, "out", "in", "local", "forward"};

#endif
