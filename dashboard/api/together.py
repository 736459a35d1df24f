"""Many at once: what coroutines ask while a call to Redis is under way goes into the next one together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Together(Generic[T, R]):
    """Answers questions of coroutines by calls of `work` in a thread, one at a time, `most` in each.

    `work` gets the questions that have come since its last call began, and returns an answer or an exception
    for each. So a call that is alone isn't held up, and under load a round trip serves many.

    >>> reads = Together(lambda ids: reader.read_many(client, ids), executor)  # doctest: +SKIP
    >>> await reads.ask("2a9f")  # doctest: +SKIP
    """

    def __init__(
        self, work: Callable[[Sequence[T]], Sequence[R | Exception]], executor: Executor, most: int = 200
    ) -> None:
        self._work = work
        self._executor = executor
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: T) -> R:
        """The answer to `question`. Raises the exception that `work` has for it, or raises itself."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((question, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._answer())
        return await future

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            some, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            asked = [question for question, future in some if not future.done()]
            futures = [future for _, future in some if not future.done()]
            if not asked:
                continue
            answers: Sequence[Any]
            try:
                answers = await loop.run_in_executor(self._executor, self._work, asked)
            except Exception as error:
                answers = [error] * len(asked)
            for future, answer in zip(futures, answers, strict=True):
                if future.done():  # whoever asked has gone
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
