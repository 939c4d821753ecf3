"""What a job of a test runs as `python`: lets a copy of the preloaded interpreter do the work in its stead.

Imports next to nothing, for its start is what is to be saved.
"""

import marshal
import os
import signal
import socket
import sys
import time

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(address: str, arguments: list[str]) -> int:
    """Return the exit code of `python *arguments`, which gets this process's environment, open files and signals."""
    ignored = [int(number) for number in PASSED_ON if signal.getsignal(number) == signal.SIG_IGN]
    mask = os.umask(0)
    asked = {"arguments": arguments, "cwd": os.getcwd(), "environment": dict(os.environ), "umask": mask}  # noqa: PTH109
    body = marshal.dumps(asked | {"ignored": ignored})
    line = connected(address)
    socket.send_fds(line, [len(body).to_bytes(8, "big")], [0, 1, 2])
    line.sendall(body)
    copy = received(line)
    for number in PASSED_ON:
        if number not in ignored:
            signal.signal(number, lambda number, frame: os.kill(copy, number))
    code = os.waitstatus_to_exitcode(received(line))
    if code < 0:  # a signal ended it: end in the same way
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def connected(address: str) -> socket.socket:
    """Return a connection to the server, which listens once it has imported everything."""
    for _ in range(3000):
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(address)
            return line
        except (FileNotFoundError, ConnectionRefusedError):
            line.close()
            time.sleep(0.1)
    sys.exit("the preloaded interpreter has not started")


def received(line: socket.socket) -> int:
    """Return the number the server sends next."""
    data = line.recv(8, socket.MSG_WAITALL)
    if len(data) < 8:
        sys.exit("the preloaded interpreter is gone")
    return int.from_bytes(data, "big")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
