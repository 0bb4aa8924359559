"""HTTP endpoints of the session module. The VNC WebSocket is in `vnc`."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import Response, StreamingResponse

from moorage_api.events import sse
from moorage_api.files.service import FileService
from moorage_api.http.envelope import Envelope, ok
from moorage_api.http.provided import provide
from moorage_api.sandboxes.reader import SandboxReader
from moorage_api.sessions import schemas
from moorage_api.sessions.presenter import Presenter
from moorage_api.sessions.service import SessionService
from moorage_api.sessions.streams import EventStreams
from moorage_api.users.callers import CurrentUser, StreamLease

router = APIRouter(prefix="/sessions", tags=["sessions"])

SessionId = Annotated[UUID, Path(description="Id from POST /api/sessions")]


Scope = Annotated[Literal["own", "all"], Query(description="`all`: an admin gets the sessions of all users")]
SinceSeq = Annotated[int, Query(ge=0, le=2**62, description="Only events with a higher seq; 0 for all")]
Limit = Annotated[int | None, Query(ge=1, le=10_000, description="Most events to return; all of them if omitted")]
LastEventId = Annotated[str | None, Header(description="Same as `event_id`; browsers send it when they reconnect")]

Sessions = Annotated[SessionService, Depends(provide(SessionService))]
Reading = Annotated[SandboxReader, Depends(provide(SandboxReader))]
Presenting = Annotated[Presenter, Depends(provide(Presenter))]
Streams = Annotated[EventStreams, Depends(provide(EventStreams))]
Files = Annotated[FileService, Depends(provide(FileService))]


@router.post("")
async def create_session(user: CurrentUser, sessions: Sessions) -> Envelope[schemas.CreateSessionResponse]:
    """Create a session. Its sandbox is created when it is first needed, usually at the first message."""
    return ok(schemas.CreateSessionResponse(session_id=str(await sessions.create(owner_id=user.id))))


@router.get("", response_model=Envelope[schemas.ListSessionResponse])
async def list_sessions(user: CurrentUser, sessions: Sessions, scope: Scope = "own") -> Response:
    """List the caller's sessions, newest activity first. With `scope=all` an admin gets the sessions of all users."""
    items = await sessions.list_of(user, everyone=scope == "all" and user.is_admin)
    answer = ok(schemas.ListSessionResponse.model_construct(sessions=items))  # rows of our database need no validation
    return Response(answer.model_dump_json(), media_type="application/json")


@router.post("/stream", response_class=StreamingResponse, dependencies=[StreamLease])
async def stream_sessions(user: CurrentUser, sessions: Sessions, streams: Streams) -> StreamingResponse:
    """Stream the session list as Server-Sent Events: `sessions` with the whole list, at once and after each change."""
    frames = streams.list_frames(user_id=user.id, read_list=lambda: sessions.list_of(user))
    return StreamingResponse(frames, media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)


@router.get("/{session_id}")
async def get_session(
    session_id: SessionId,
    user: CurrentUser,
    sessions: Sessions,
    presenting: Presenting,
    since_seq: SinceSeq = 0,
    limit: Limit = None,
) -> Envelope[schemas.SessionDetail]:
    """Get a session and its events. Use `since_seq` and `limit` to read a long log page by page."""
    session = await sessions.get(session_id, reader=user)
    events = [
        schemas.SessionEvent(event=event.type, data=sse.event_data(presenting.present(event)))
        async for event in sessions.events(session_id, since_seq=since_seq, limit=limit)
    ]
    return ok(
        schemas.SessionDetail(session_id=str(session.id), title=session.title, status=session.status, events=events)
    )


@router.post("/{session_id}/chat", response_class=StreamingResponse, dependencies=[StreamLease])
async def chat(
    session_id: SessionId,
    user: CurrentUser,
    sessions: Sessions,
    files: Files,
    presenting: Presenting,
    streams: Streams,
    body: schemas.ChatRequest | None = None,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Send a message, or follow the current run. Server-Sent Events until `done`, `wait` or `error`.

    Every request that is refused is refused before the stream begins, with a JSON envelope.
    """
    body = body or schemas.ChatRequest()
    cursor = sse.parse_cursor(body.event_id) or sse.parse_cursor(last_event_id)
    await sessions.get(session_id, reader=user)
    until: int | None = None
    if body.has_content:
        attachments = await files.get_many(body.attachments or [], reader=user)
        posted = await sessions.post_message(
            session_id, reader=user, message=body.message or "", attachments=attachments
        )
        run_from = posted.seq
        newest = posted.seq
    else:
        run = await sessions.newest_run(session_id)
        newest = await sessions.last_seq(session_id)
        run_from = run.first_seq if run else 1
        until = None if run and run.is_active else newest
    after = cursor if cursor is not None and cursor <= newest else run_from - 1
    frames = streams.chat_frames(
        session_id,
        user_id=user.id,
        after=after,
        run_from=run_from,
        until=until,
        present=presenting.present,
    )
    return StreamingResponse(frames, media_type=sse.MEDIA_TYPE, headers=sse.HEADERS)


@router.post("/{session_id}/stop")
async def stop_session(session_id: SessionId, user: CurrentUser, sessions: Sessions) -> Envelope[None]:
    """Stop the session's run. If nothing runs, the request succeeds and changes nothing."""
    await sessions.stop(session_id, reader=user)
    return ok()


@router.post("/{session_id}/clear-unread-message-count")
async def clear_unread(session_id: SessionId, user: CurrentUser, sessions: Sessions) -> Envelope[None]:
    """Set the unread count to 0. Only the owner may do this; admins may not."""
    await sessions.clear_unread(session_id, reader=user)
    return ok()


@router.post("/{session_id}/delete")
async def delete_session(session_id: SessionId, user: CurrentUser, sessions: Sessions) -> Envelope[None]:
    """Delete the session, its events and its sandbox with all its content. The user keeps uploaded and saved files."""
    await sessions.delete(session_id, reader=user)
    return ok()


@router.get("/{session_id}/files")
async def list_session_files(
    session_id: SessionId, user: CurrentUser, sessions: Sessions, files: Files
) -> Envelope[schemas.SessionFilesResponse]:
    """List the files that were attached to messages or saved by the agent."""
    await sessions.get(session_id, reader=user)
    attached = await sessions.attached_files(session_id)
    return ok(schemas.SessionFilesResponse(files=await files.list_for_session(session_id, attached=attached)))


@router.post("/{session_id}/file")
async def read_file(
    session_id: SessionId, body: schemas.ReadFileRequest, user: CurrentUser, sessions: Sessions, reading: Reading
) -> Envelope[schemas.ReadFileResponse]:
    """Read a text file in the sandbox with the rights of the agent's user."""
    await sessions.get(session_id, reader=user)
    content = await reading.file_text(session_id, body.filepath)
    return ok(schemas.ReadFileResponse(filepath=body.filepath, content=content))


@router.post("/{session_id}/shell")
async def read_shell(
    session_id: SessionId, body: schemas.ReadShellRequest, user: CurrentUser, sessions: Sessions, reading: Reading
) -> Envelope[schemas.ReadShellResponse]:
    """Read the current output of one of the agent's shells."""
    await sessions.get(session_id, reader=user)
    view = await reading.shell(session_id, body.session_id)
    return ok(
        schemas.ReadShellResponse(session_id=body.session_id, output=view.output, console_records=view.console_records)
    )
