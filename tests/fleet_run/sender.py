"""Make flows, a process of its own for the run: `sender.py COUNT PER_SECOND MARK OUT`, and write down each one made.

A flow is a datagram of a socket of its own, to an address behind the device "sink", where nobody answers. A line of OUT
is "SPORT DST DPORT", written after the datagram was sent. COUNT flows, at PER_SECOND.
"""

import socket
import sys
import time


def main(count, rate, first, out):
    begun, stood = time.monotonic(), 0.0
    last = begun
    with open(out, "a", buffering=1) as made:
        for number in range(count):
            # Stopped (SIGSTOP), it does not make up for the time.
            now = time.monotonic()
            if now - last > 0.5:
                stood += now - last
            last = now
            if (wait := begun + stood + number / rate - now) > 0:
                time.sleep(wait)
                last = time.monotonic()
            index = first + number
            dst, dport = f"198.18.{index >> 8 & 255}.{index & 255}", 7000 + (index >> 16)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect((dst, dport))
                sock.send(b"x")
                made.write(f"{sock.getsockname()[1]} {dst} {dport}\n")


if __name__ == "__main__":
    count, rate, first, out = sys.argv[1:5]
    main(int(count), float(rate), int(first), out)
