"""Asks a server of metrics as Prometheus does, and as nobody should.

    scrape.py HOST PORT         exit code 1 with a traceback where an answer is not as it should be
"""

import http.client
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from exposition import parsed  # noqa: E402


def raw(host, port, *pieces):
    """What comes back to bytes, until the server closes."""
    with socket.create_connection((host, port), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while got := connection.recv(65536):
            answer += got
    return answer


def main(host, port):
    asked = http.client.HTTPConnection(host, port, timeout=20)
    for target in ("/metrics", "/metrics?name[]=x"):
        asked.request("GET", target)
        answer = asked.getresponse()
        body = answer.read()
        assert answer.status == 200 and answer.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8", answer.status
        assert int(answer.getheader("Content-Length")) == len(body)
        found = parsed(body.decode())
        assert found["hesspect_jobs"][2] == {(("state", "queued"),): 3.0}, found
    for method, target, status in (("POST", "/metrics", 405), ("HEAD", "/metrics", 405), ("GET", "/", 404), ("GET", "/metrics/..", 404), ("GET", "//metrics", 404)):
        asked.request(method, target)
        answer = asked.getresponse()
        answer.read()
        assert answer.status == status, (method, target, answer.status)
    status = lambda answer: answer.split(b"\r\n")[0]
    good = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    assert status(raw(host, port, *(good[i:i + 1] for i in range(len(good))))) == b"HTTP/1.1 200 OK"
    assert status(raw(host, port, b"GET /metrics HTTP/1.0\n\n")) == b"HTTP/1.1 200 OK"
    assert status(raw(host, port, b"\x16\x03\x01\x00\x00\r\n\r\n")) == b"HTTP/1.1 400 Bad Request"
    assert status(raw(host, port, b"GET /metrics\r\n\r\n")) == b"HTTP/1.1 400 Bad Request"
    assert status(raw(host, port, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20000)) == b"HTTP/1.1 431 Request Header Fields Too Large"
    # one that says nothing holds the next up for 2 s at most, and one that has gone away not at all
    socket.create_connection((host, port)).close()
    silent = socket.create_connection((host, port))
    assert status(raw(host, port, good)) == b"HTTP/1.1 200 OK"
    assert silent.recv(1) == b""


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
