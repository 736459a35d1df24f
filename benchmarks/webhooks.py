"""How many webhooks per second one process sends to a local receiver, with 1 and 4 at a time.

python benchmarks/webhooks.py [events]
"""

from __future__ import annotations

import os
import socket
import threading
import time

from harness import arguments, client_of, machine, table

from packmule.coordination.redis.embedded_server import EmbeddedServer
from packmule.jobs.outgoing.door import Allowed
from packmule.observe.events import stream
from packmule.observe.webhooks import sender
from packmule.observe.webhooks.endpoints import Endpoint, Webhook
from packmule.observe.webhooks.signature import key_of
from packmule.testing import private_server

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def receive(listening: socket.socket, total: int) -> None:
    """Answer `total` requests."""
    left = threading.Semaphore(0)

    def serve(connection: socket.socket) -> None:
        data = b""
        while chunk := connection.recv(65536):
            data += chunk
            while (end := data.find(b"\r\n\r\n")) >= 0:
                head = data[:end].lower()
                size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
                if len(data) < end + 4 + size:
                    break
                data = data[end + 4 + size :]
                connection.sendall(ANSWER)
                left.release()

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    for _ in range(total):
        left.acquire()


def measure(server: EmbeddedServer, events: int, concurrency: int) -> float:
    """Webhooks per second."""
    client = client_of(server)
    client.flushall()
    listening = socket.create_server(("127.0.0.1", 0))
    child = os.fork()
    if not child:
        receive(listening, events)
        os._exit(0)
    hook = Webhook(f"http://127.0.0.1:{listening.getsockname()[1]}/", concurrency=concurrency)
    endpoint = Endpoint("bench", hook, key_of("a secret of enough bytes"))
    stop = threading.Event()
    sending = threading.Thread(
        target=sender.run,
        args=(lambda: client_of(server), [endpoint], Allowed(["127.0.0.1"]), stop),
    )
    sending.start()
    source = stream(client)
    while not client.exists(source.key):
        time.sleep(0.01)
    rows = [["finished", f"job-{n}", "low", "w", 1.5, {"started": 1.0, "ended": 2.0}] for n in range(events)]
    began = time.perf_counter()
    for first in range(0, events, 32):
        source.append(rows[first : first + 32])
    os.waitpid(child, 0)
    seconds = time.perf_counter() - began
    stop.set()
    sending.join()
    listening.close()
    return events / seconds


def main(events: int) -> None:
    """Measure both, and print the rates."""
    with private_server() as server, client_of(server) as client:
        print(f"{machine(client=client)}; {events:,} signed webhooks\n")
        rows = [(f"{count} at a time", f"{measure(server, events, count):,.0f}") for count in (1, 4)]
    table(("", "per second"), rows)


if __name__ == "__main__":
    main(*arguments(3_000))
