"""Programs that cause faults on purpose and count what became of the mail.

Each module here shows one promise of docs/guarantees.md: it starts a real server of the project in `project/`, with real sockets, a
real database and a sink that stands for the rest of the world, does to them what the world may do, and prints its figures. Its `run`
raises `Broken` when a promise is. The quick forms are tests (`test_*.py`), the full ones are commands:

    python -m tests.faults                      what there is
    python -m tests.faults kill --kills 20      one of them, with its figures set
    python -m tests.faults all                  every one in full

They know Lamson by its command line, its ports and its tables only, as an operator does.
"""
