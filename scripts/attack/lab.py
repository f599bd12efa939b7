"""Shared by the attacks: a service under attack, connections as an attacker opens them, and measurements.

Everything stays on the loopback and is bounded in number and time. A service runs in a temporary directory, from the
binary that FORETELL names, and is stopped by its process id.
"""

import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import resource
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parents[2]
STARTS_WITHIN_S = 60


def binary():
    """The binary that is attacked."""
    named = os.environ.get("FORETELL")
    for path in [named] if named else [ROOT / "target" / kind / "foretell" for kind in ("release", "debug")]:
        if pathlib.Path(path).exists():
            return str(path)
    sys.exit("no binary: name one in FORETELL, or build it with `cargo build --release`")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def descriptors(needed):
    """Raises this process's limit of descriptors; exits if the machine does not allow it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        sys.exit(f"this attack needs {needed} descriptors, and the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class Service:
    """A running `foretell serve`, stopped at the end of the `with` block."""

    def __init__(self, keys=None, settings=None, limit=None):
        """`keys`: name -> (tenant, scopes); `settings`: "section.key" -> value, only those that the binary has."""
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="foretell-attack-"))
        self.port, self.ops_port = free_port(), free_port()
        self.limit = limit
        known = subprocess.run([binary(), "config", "dump", "--defaults"], capture_output=True, text=True, check=True)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("FORETELL__")}
        self.environment["FORETELL__TELEMETRY__LOG_FILTER"] = "warn"
        if "[ops]" in known.stdout:
            self.set("ops.listen", f"127.0.0.1:{self.ops_port}")
        else:
            self.ops_port = self.port
        for name, value in (settings or {}).items():
            if f"\n{name.split('.')[-1]} = " in known.stdout:
                self.set(name, value)
        if keys:
            entries = [
                f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
                f'tenant = "{tenant}"\nscopes = {json.dumps(scopes)}\n'
                for name, (tenant, scopes) in keys.items()
            ]
            (self.directory / "keys.toml").write_text("\n".join(entries))
            self.set("http.api_keys_file", self.directory / "keys.toml")
        self.process = None

    def set(self, name, value):
        self.environment["FORETELL__" + name.upper().replace(".", "__")] = str(value)

    def start(self):
        """Starts the process without waiting for it to be ready."""
        data = f"disk:{self.directory / 'data'}"
        command = [binary(), "serve", "--listen", f"127.0.0.1:{self.port}", "--log", data, "--store", data]
        if self.limit:
            # Both limits, so that the process cannot raise its own.
            command = ["bash", "-c", f'ulimit -n {self.limit} && exec "$@"', "bash", *command]
        output = open(self.directory / "output", "wb")
        self.process = subprocess.Popen(command, env=self.environment, stdout=output, stderr=output)
        output.close()
        return self

    def __enter__(self):
        self.start()
        deadline = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if self.get("/readyz").status == 200:
                    return self
            time.sleep(0.05)
        print(self.output(), file=sys.stderr)
        self.__exit__()
        sys.exit("the service did not become ready")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def output(self):
        return (self.directory / "output").read_text(errors="replace")[-4000:]

    def lives(self):
        return self.process.poll() is None

    def resident_mib(self):
        """Resident memory of the process, in MiB."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def connect(self, source="127.0.0.1", timeout=5):
        """A connection without a request, from an address of the loopback."""
        return socket.create_connection(("127.0.0.1", self.port), timeout, (source, 0))

    def request(self, method, path, body=None, key=None, headers=None, timeout=10, source="127.0.0.1", port=None):
        """One request on a new connection; the answer is read to its end."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout, (source, 0))
        try:
            return send_request(connection, method, path, body, key, headers)
        finally:
            connection.close()

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body, **options):
        return self.request("POST", path, body, **options)

    def metrics(self):
        """The metrics of the process, as name{labels} -> value."""
        text = self.get("/metrics", port=self.ops_port, timeout=30).text
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def fold(self, events, key=None, at_once=1000):
        """Appends events in batches and waits until the views contain them."""
        for begin in range(0, len(events), at_once):
            headers = {"content-type": "application/cloudevents-batch+json", "prefer": "wait=30"}
            answer = self.post("/v1/events", events[begin : begin + at_once], key=key, headers=headers, timeout=60)
            if answer.status != 200:
                raise AssertionError(f"events were not folded: {answer.status} {answer.text[:500]}")


class Answer:
    """A status, headers in lower case, and a body."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        try:
            return self.json.get("code", "")
        except (ValueError, AttributeError):
            return ""


def send_request(connection, method, path, body=None, key=None, headers=None):
    """Sends a request on an open `http.client` connection, and reads the answer."""
    headers = dict(headers or {})
    if key:
        headers["authorization"] = f"Bearer {key}"
    if body is not None and not isinstance(body, (bytes, str)):
        body = json.dumps(body)
        headers.setdefault("content-type", "application/json")
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def head(method, path, key=None, headers=()):
    """A head of HTTP/1.1 as bytes, without the empty line that ends it."""
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *headers]
    if key:
        lines.append(f"authorization: Bearer {key}")
    return ("\r\n".join(lines) + "\r\n").encode()


# A minimal HTTP/2: no Huffman codes and no dynamic table.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values):
    """A SETTINGS frame; `window` is the initial window of streams."""
    payload = struct.pack(">HI", 4, values["window"]) if "window" in values else b""
    return frame(SETTINGS, 0, 0, payload)


def literal(name, value):
    """A header field without indexing (RFC 7541, 6.2.2)."""

    def text(part):
        part = part.encode()
        if len(part) < 127:
            return bytes([len(part)]) + part
        rest, out = len(part) - 127, bytearray([127])
        while rest >= 128:
            out.append(rest % 128 + 128)
            rest //= 128
        return bytes(out) + bytes([rest]) + part

    return b"\x00" + text(name) + text(value)


def headers_frame(stream, method, path, key=None, ends=True, extra=()):
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "127.0.0.1"), *extra]
    if key:
        fields.append(("authorization", f"Bearer {key}"))
    flags = 0x4 | (0x1 if ends else 0)
    return frame(HEADERS, flags, stream, b"".join(literal(name, value) for name, value in fields))


class Peer:
    """A connection whose owner answers only pings, so that HTTP/2's keep-alive does not close it."""

    def __init__(self, connection):
        self.connection, self.buffer, self.is_open = connection, b"", True
        connection.setblocking(False)

    def look(self):
        """Reads available data and answers pings; returns whether the connection is open."""
        while self.is_open:
            try:
                got = self.connection.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                got = b""
            if not got:
                self.is_open = False
                self.connection.close()
                break
            self.buffer += got
        while len(self.buffer) >= 9:
            length = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + length:
                break
            kind, flags = self.buffer[3], self.buffer[4]
            payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
            with contextlib.suppress(OSError):
                if kind == PING and not flags & 1:
                    self.connection.send(frame(PING, 1, 0, payload))
                if kind == SETTINGS and not flags & 1:
                    self.connection.send(frame(SETTINGS, 1, 0))
        return self.is_open


def is_open(connection):
    """Whether the other side keeps a connection open; received data is discarded."""
    connection.setblocking(False)
    try:
        while connection.recv(65_536):
            pass
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False


# Events.


def stamp(ahead_s=0):
    """The time `ahead_s` seconds from now, in RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + ahead_s))


def event(identity, kind, data, **extra):
    return {
        "specversion": "1.0",
        "id": identity,
        "source": "urn:attack",
        "type": f"foretell.{kind}",
        "time": stamp(),
        "data": data,
        **extra,
    }


def login(identity, user):
    return event(identity, "login.succeeded", {"user_id": user, "ip": "198.51.100.7", "device_id": "d", "country": "IE"})


def booked(identity, client, appointment, ahead_s):
    data = {"appointment_id": appointment, "client_id": client, "starts_at": stamp(ahead_s), "time_zone": "UTC"}
    return event(identity, "appointment.booked", data)


# Measures.


def quantile(values, share):
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Verdict:
    """Prints each measurement with its bound; the process exits with 1 if a bound does not hold."""

    def __init__(self):
        self.holds = True

    def hold(self, what, measured, bound, holds):
        self.holds = self.holds and bool(holds)
        shown = f"{measured:.2f}" if isinstance(measured, float) else measured
        print(f"{'ok  ' if holds else 'FAIL'}  {what}: {shown} (bound: {bound})", flush=True)

    def end(self):
        sys.exit(0 if self.holds else 1)


def quoted(text):
    return urllib.parse.quote(text, safe="")
