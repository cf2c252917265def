# From rsyslog to RELP or Kafka, confirmed when the other side has acknowledged it
#
#     relay.py relp://collector.example.net:2514 PENDING [SETTINGS]
#     relay.py kafka://kafka.example.net:9092,...:9092/TOPIC PENDING [SETTINGS]
#
# as rsyslog-host.conf and rsyslog-collector.conf start it, by any Python from 3.9. kafka needs confluent_kafka, which
# is Debian's python3-confluent-kafka. rsyslog's own omrelp and omkafka take messages off rsyslog's queue when these are
# sent, or are only to be sent, and forget them with rsyslog. Here they stay in the queue until they are acknowledged.
# A batch that is not acknowledged in time is refused as a whole, and rsyslog sends it again: messages may come twice.
#
# "BEGIN TRANSACTION" and "COMMIT TRANSACTION" stand around a batch, and every line is answered. A line is a message;
# for kafka a key, a tab and a message. What is not acknowledged is in the file PENDING too, and goes with the next
# batch: of a batch during which this program was killed rsyslog sends only the last line again (its issue 2420), and
# when rsyslog is told to end while a batch waits, that is not in its queue any more.
#
# SETTINGS is a file with NAME=VALUE on each line, which do not belong in the arguments, where everybody can read them:
# for kafka settings of librdkafka (security.protocol, sasl.password); for relp ca, cert and key, which turn TLS on.

import fcntl
import os
import socket
import ssl
import sys
import time
from urllib.parse import urlsplit

CONNECT_S = 4
RELP_S = 10  # for an answer; queue.timeoutActionCompletion has to be longer
KAFKA_S = 20
WINDOW = 128  # frames that may be unanswered, as librelp has it


class Relp:
    """A connection to imrelp or another server of RELP, opened when it is needed."""

    def __init__(self, host, port, settings):
        self._address, self._settings, self._sock, self._answers, self._number = (host, port), settings, None, None, 0

    def _open(self):
        if self._sock is not None:
            return
        self._sock = socket.create_connection(self._address, CONNECT_S)
        if self._settings:
            context = ssl.create_default_context(cafile=self._settings["ca"])
            if "cert" in self._settings:
                context.load_cert_chain(self._settings["cert"], self._settings.get("key"))
            self._sock = context.wrap_socket(self._sock, server_hostname=self._address[0])
        self._sock.settimeout(RELP_S)
        self._answers, self._number = self._sock.makefile("rb"), 0
        self._sock.sendall(self._frame("open", b"relp_version=0\nrelp_software=nfct-relay\ncommands=syslog\n"))
        self._await_answer(1)

    def _frame(self, command, data):
        self._number = self._number % 999_999_999 + 1
        return b"%d %s %d %s\n" % (self._number, command.encode(), len(data), data)

    def _word(self):
        word = b""
        while (byte := self._answers.read(1)) not in (b" ", b"\n", b""):
            word += byte
            if len(word) > 20:
                raise OSError(f"no RELP: {word!r}")
        if not byte:
            raise OSError("the connection was closed")
        return word, byte

    def _await_answer(self, number):
        answered, _ = self._word()
        command, _ = self._word()
        size, end = self._word()
        data = b""
        if end == b" ":
            data = self._answers.read(int(size) + 1)
        if int(answered) != number or command != b"rsp" or not data.startswith(b"200"):
            raise OSError(f"answer to message {number}: {answered!r} {command!r} {data[:100]!r}")

    def deliver(self, lines):
        """Send lines and wait until each is acknowledged; OSError or ValueError if not all are."""
        try:
            self._open()
            for start in range(0, len(lines), WINDOW):
                part = lines[start : start + WINDOW]
                first = self._number + 1
                self._sock.sendall(b"".join(self._frame("syslog", line) for line in part))
                for index in range(len(part)):
                    self._await_answer(first + index)
        except (OSError, ValueError):
            if self._sock is not None:
                self._sock.close()
                self._sock = None
            raise


class Kafka:
    """A producer for a topic."""

    def __init__(self, brokers, topic, settings):
        from confluent_kafka import Producer

        # Not idempotent, as the tables know what comes twice. With idempotence, records that Tansu 0.6 had acknowledged
        # were missing after it was killed.
        chosen = {"bootstrap.servers": brokers, "acks": "all", "enable.idempotence": False, "linger.ms": 5}
        chosen |= {"message.timeout.ms": KAFKA_S * 1000, "compression.type": "lz4", "socket.keepalive.enable": True}
        chosen |= {"reconnect.backoff.max.ms": 2000, "client.id": "nfct-relay"}
        self._topic, self._producer = topic, Producer({**chosen, **settings})

    def deliver(self, lines):
        """Send lines and wait until each is acknowledged; OSError if not all are."""
        failures = []

        def delivered(error, _):
            if error is not None:
                failures.append(error)

        for line in lines:
            key, _, message = line.partition(b"\t")
            while True:
                try:
                    self._producer.produce(self._topic, message, key, on_delivery=delivered)
                    break
                except BufferError:  # librdkafka's queue is full
                    self._producer.poll(0.1)
        left = self._producer.flush(KAFKA_S + 5)
        if failures or left:
            # What is left would be sent after the answer to rsyslog, and then once more.
            self._producer.purge()
            self._producer.flush(1)
            why = failures[0] if failures else "too late"
            raise OSError(f"{len(failures) or left} of {len(lines)} messages not stored: {why}")


def serve(target, pending, lines, answer):
    """Answer rsyslog's lines until there are no more. pending: a file opened for reading and appending."""
    pending.seek(0)
    # In order and each once: rsyslog repeats the lines of a batch that was refused, or only some of them.
    waiting = dict.fromkeys(line for line in pending.read().split(b"\n") if line)
    for line in lines:
        line = line.rstrip(b"\n")
        if line == b"BEGIN TRANSACTION":
            answer("OK")
        elif line == b"COMMIT TRANSACTION":
            try:
                target.deliver(list(waiting))
            except Exception as error:
                said = f"{time.strftime('%FT%TZ', time.gmtime())} {len(waiting)} messages wait: {error}"
                print(said, file=sys.stderr, flush=True)
                answer(f"not delivered: {error}".replace("\n", " "))
                continue
            waiting.clear()
            pending.truncate(0)
            answer("OK")
        else:
            if line and line not in waiting:
                waiting[line] = None
                pending.write(line + b"\n")
                pending.flush()
            answer("DEFER_COMMIT")


def main(url, pending, settings=None):
    chosen = {}
    if settings is not None:
        with open(settings) as file:
            words = (line.strip() for line in file)
            chosen = dict(word.split("=", 1) for word in words if word and not word.startswith("#"))
    parts = urlsplit(url)
    if parts.scheme == "relp":
        target = Relp(parts.hostname, parts.port or 2514, chosen)
    elif parts.scheme == "kafka":
        target = Kafka(parts.netloc, parts.path.strip("/"), chosen)
    else:
        sys.exit(f"{url}: neither relp:// nor kafka://")
    os.umask(0o077)
    with open(pending, "ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the one before may not have ended yet
        print("OK", flush=True)
        serve(target, file, sys.stdin.buffer, lambda text: print(text, flush=True))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("relay.py URL PENDING [SETTINGS]")
    main(*sys.argv[1:])
