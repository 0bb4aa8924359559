"""One turn of the model: send as much of the transcript as fits, and count the turn."""

from __future__ import annotations

from collections.abc import Collection

from moorage_api.agent import prompts
from moorage_api.agent.model.endpoint import OnProgress
from moorage_api.agent.model.incoming.answers import Answer
from moorage_api.agent.model.outgoing import pictures
from moorage_api.agent.model.patience import OnWait
from moorage_api.agent.model.servers.counting import LEAST_RATIO, compare
from moorage_api.agent.model.servers.errors import LlmError, WindowFullError
from moorage_api.agent.tokens import count_tokens
from moorage_api.agent.turn import compaction, repair
from moorage_api.agent.turn.progress import check_model_turns
from moorage_api.agent.turn.work import Work
from moorage_api.events.schemas import MessageEvent

LONG_TOKENS = 4_000
"""A request longer than this is sent once more, shortened, when the server refuses it without a clear reason."""
SHORTER_SHARE = 0.5
NOT_SHORTER = 0.95
"""If a request cannot be made shorter than this share, the answer to the cut one is as good as another."""
MAX_SHORTENINGS = 4
FITS = 1.25
"""A request that should have fitted into the window so clearly was not cut; its count says something else."""


async def ask_model(
    work: Work, *, allowed: Collection[str], force: bool = False, on_progress: OnProgress | None = None
) -> Answer:
    """Send the transcript to the model and return its answer.

    `allowed`: names of the functions that the model may call. If it may call no function, it has to write text.

    Raises LlmError, TurnLimitError and InterruptedByUserError.
    """
    check_model_turns(work.state, work.limits)
    await work.add_notes()
    answer = await _Attempts(work, allowed=allowed, force=force, on_progress=on_progress).ask()
    work.state = work.state.model_copy(
        update={
            "iterations": work.state.iterations + 1,
            "turn_iterations": work.state.turn_iterations + 1,
        }
    )
    return answer


class _Attempts:
    """The attempts of one model turn: as it is, shortened, and with the calls of the history as plain text."""

    def __init__(self, work: Work, *, allowed: Collection[str], force: bool, on_progress: OnProgress | None) -> None:
        self._work = work
        self._allowed = allowed
        self._force = force
        self._on_progress = on_progress
        self._before = work.state.shortened
        self._shortenings = 0
        self._guesses = 0
        self._is_guess_unclear = False
        """The guess that the request is too long follows a 500, which may as well be trouble that has passed."""
        self._has_tried_words = False
        """The pictures were left out, because the server may have refused one of them."""
        self._forms = iter(repair.FORMS)
        self._is_repaired = False
        self._first_error: LlmError | None = None
        self._cut_answer: Answer | None = None
        """The answer to a request that the server did not read whole, and our count of that request."""
        self._cut_sent = 0

    async def ask(self) -> Answer:
        work = self._work
        while True:
            messages = await compaction.build_request(work)
            is_long = not self._guesses and count_tokens(messages) > LONG_TOKENS
            sent = count_tokens(messages) + compaction.count_described(
                work.llm.select_functions(work.tools.functions, self._allowed)
            )
            if self._cut_answer is not None and sent > NOT_SHORTER * self._cut_sent:
                return self._cut_answer
            try:
                answer = await work.unless_interrupted(
                    work.llm.ask(
                        messages,
                        tools=work.tools.functions,
                        allowed=self._allowed,
                        force=self._force,
                        max_retries=work.limits.max_retries,
                        on_progress=self._on_progress,
                        on_wait=show_waiting(work),
                        is_long=is_long or self._is_repaired,
                    )
                )
            except WindowFullError as error:
                if error.status == 413 and await compaction.leave_out_pictures(work):
                    continue  # the server counts bytes, and pictures have most of them
                self._shortenings += 1
                if self._shortenings >= MAX_SHORTENINGS:
                    raise LlmError(
                        error.code,
                        "The model's context window is too small for this task, even with the shortest form of the "
                        f"conversation; choose a model with a larger window. {error}",
                    ) from error
                # first for this session: it compares the named window with the one that was assumed
                await compaction.reduce_window(work, named=error.window_tokens)
                if error.window_tokens:
                    await work.llm.learn_window(error.window_tokens, "refusal")
            except LlmError as error:
                if not await self._try_another_form(error, is_long=is_long):
                    raise (self._first_error or error) from error
            else:
                has_pictures = pictures.count(messages) > 0  # servers count very different numbers of tokens for them
                if self._cut_answer is not None or has_pictures or not await self._is_cut(answer, sent):
                    await self._restore_long_form()
                    return answer
                self._cut_answer, self._cut_sent = answer, sent

    async def _restore_long_form(self) -> None:
        """Send the long form again from the next request on, if only a 500 spoke against it, and only once a turn.

        A server that cannot take long requests answers with 500 again, and then the short form stays.
        """
        work = self._work
        is_unsure = self._is_guess_unclear and not self._is_repaired and not self._shortenings
        if is_unsure and not work.has_restored_long_form and self._cut_answer is None:
            work.has_restored_long_form = True
            await work.record(shortened=self._before)

    async def _is_cut(self, answer: Answer, sent: int) -> bool:
        """Whether the server read only a part of the request, although it fits into the window that we know of.

        Then the window is smaller from now on, and the user is told once.
        """
        work = self._work
        if answer.usage is None:
            return False
        counted = answer.usage.input_tokens
        before, llm = work.state.token_count, work.llm
        known = work.state.shortened.window(llm)
        count, verdict = compare(before, model=llm.identity, sent=sent, counted=counted)
        expected = int(sent * (count.ratio if count.largest else LEAST_RATIO))
        window = 0
        if verdict != "whole" and sent <= known:
            window = await llm.find_window() or (max(counted, count.largest) if verdict == "cut" else 0)
            if window > expected * (FITS if verdict == "cut" else 1):
                count, window = count.model_copy(update={"is_partial": True}), 0
        if window:
            count = count.model_copy(update={"has_told_user_of_cut": True})
        work.state = work.state.model_copy(update={"token_count": count})
        if not window:
            return False
        told = MessageEvent(role="assistant", message=prompts.window_is_cut(window, expected))
        await compaction.reduce_window(work, *([] if before.has_told_user_of_cut else [told]), named=window)
        await llm.learn_window(window, "usage")
        return True

    async def _try_another_form(self, error: LlmError, *, is_long: bool) -> bool:
        """Prepare the next attempt after an error without a clear reason. False if no form is left.

        The conversation keeps its old form then, because the form was not the reason.
        """
        work = self._work
        self._first_error = self._first_error or error
        if not self._has_tried_words and error.may_be_picture and await compaction.leave_out_pictures(work):
            self._has_tried_words = True
            return True
        if self._has_tried_words:
            await compaction.show_pictures_from(work, self._before.pictures_before)
        if error.may_be_length and is_long:
            self._guesses += 1
            self._is_guess_unclear = error.status == 500
            await compaction.reduce_window(work, share=SHORTER_SHARE)
            return True
        if self._guesses and not self._is_repaired and work.state.shortened != self._before:
            await work.record(shortened=self._before)
        if error.may_be_history:
            for change in self._forms:
                if await change(work):
                    self._guesses, self._is_repaired = 2, True
                    return True
        if work.state.shortened != self._before:
            await work.record(shortened=self._before)
        return False


def show_waiting(work: Work) -> OnWait:
    """Return a callback that tells the user why and how long we wait. The message is partial, so it is not stored."""

    async def show(reason: str, seconds: float) -> None:
        await work.journal.show_partial(
            MessageEvent(
                role="assistant",
                message=prompts.waiting_for_model(reason, seconds),
                partial=True,
                stream_id=f"waiting-{work.state.turn}",
            )
        )

    return show
