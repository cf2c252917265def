"""What the logs of Suricata and Zeek call things: an Alert of the fields of one line."""

from nfct_fast.search.alert import Alert, AlertError, make_alert, time_of
from nfct_fast.search.time_spans import NS


def alert_of(fields: dict, number: int) -> Alert | None:
    """Return what a line says, by its fields; None if it tells of no flow, as a line of statistics. Raises AlertError.

    number: Of the line, from 1.
    """
    if "src_ip" in fields:
        return _of_suricata(fields, number)
    if "id.orig_h" in fields:
        return _of_zeek(fields, number)
    if fields.get("src") and fields.get("dst"):  # a notice without a connection
        return _of_notice(fields, number)
    return None


def _of_suricata(fields, number):
    kind = fields.get("event_type")
    alert, flow = fields.get("alert"), fields.get("flow")
    what = alert.get("signature") if isinstance(alert, dict) else None
    times = time_of(fields.get("timestamp")), None
    if isinstance(flow, dict):
        start, end = time_of(flow.get("start")), time_of(flow.get("end"))
        if kind != "alert" and start is not None:  # the time stamp of a flow is when it was written
            times = start, end
    ports = "src_port", "dest_port"
    if str(fields.get("proto"))[:20].lower() in ("icmp", "ipv6-icmp"):
        ports = "icmp_type", "icmp_code"
    return make_alert(
        number,
        f"suricata {kind}" if isinstance(kind, str) and kind.isidentifier() and kind.isascii() else "suricata",
        what,
        times,
        fields.get("proto"),
        fields.get("src_ip"),
        fields.get(ports[0]),
        fields.get("dest_ip"),
        fields.get(ports[1]),
    )


def _zeek_times(fields):
    start, duration = time_of(fields.get("ts")), fields.get("duration")
    try:
        length = float(duration) if isinstance(duration, str | float | int) else None
    except (ValueError, OverflowError):
        length = None
    if start is None or length is None or not 0 <= length < 1e9:
        return start, None
    return start, start + int(length * NS)


def _of_zeek(fields, number):
    is_notice = "note" in fields
    what = fields.get("note") if is_notice else fields.get("service")
    if is_notice and isinstance(what, str) and isinstance(fields.get("msg"), str):
        what = f"{what[:100]}: {fields['msg']}"
    return make_alert(
        number,
        "zeek notice" if is_notice else "zeek conn",
        what,
        _zeek_times(fields),
        fields.get("proto"),
        fields.get("id.orig_h"),
        fields.get("id.orig_p"),
        fields.get("id.resp_h"),
        fields.get("id.resp_p"),
    )


def _of_notice(fields, number):
    if fields.get("proto") is None:
        raise AlertError("a notice without a protocol")
    alert = _of_zeek(
        {
            **fields,
            "note": fields.get("note"),
            "id.orig_h": fields["src"],
            "id.resp_h": fields["dst"],
            "id.resp_p": fields.get("p"),
        },
        number,
    )
    return alert
