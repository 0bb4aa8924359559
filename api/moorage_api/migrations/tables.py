"""Every table, imported so that one metadata holds them all (migrations, tests)."""

from moorage_api.config.models import ConfigRow
from moorage_api.database import Base
from moorage_api.events.models import EventRow, SessionHeadRow
from moorage_api.files.models import FileRow
from moorage_api.preferences.models import ToolPreferenceRow
from moorage_api.runs.models import AgentStateRow, RunRow, TranscriptRow
from moorage_api.sandboxes.models import SandboxRow
from moorage_api.sessions.models import SessionRow, UserHeadRow
from moorage_api.skills.models import SessionPinningRow, SessionSkillRow, SkillRow, SkillVersionRow
from moorage_api.tools.models import A2aConversationRow, A2aServerRow, McpServerRow
from moorage_api.usage.models import ModelCallRow, ModelPriceRow
from moorage_api.users.models import TokenFamilyRow, UserIdentityRow, UserRow

__all__ = [
    "A2aConversationRow",
    "A2aServerRow",
    "AgentStateRow",
    "Base",
    "ConfigRow",
    "EventRow",
    "FileRow",
    "McpServerRow",
    "ModelCallRow",
    "ModelPriceRow",
    "RunRow",
    "SandboxRow",
    "SessionHeadRow",
    "SessionPinningRow",
    "SessionRow",
    "SessionSkillRow",
    "SkillRow",
    "SkillVersionRow",
    "TokenFamilyRow",
    "ToolPreferenceRow",
    "TranscriptRow",
    "UserHeadRow",
    "UserIdentityRow",
    "UserRow",
]
