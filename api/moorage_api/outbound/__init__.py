"""The one way out to URLs that people configure: models, MCP servers, A2A agents, sources of skills.

A connection goes to the address that was checked, so a name that answers differently a moment later gains nothing.
What another server names (a redirect, an agent's card) is trusted less than what a person typed: see `Guard.check_hop`.
Proxies of the environment are not used: behind one, nobody here would see where a request ends.
"""

from moorage_api.outbound.addresses import Address, Target
from moorage_api.outbound.clients import Outbound
from moorage_api.outbound.policy import PURPOSES, Purpose
from moorage_api.outbound.transports import Limits

__all__ = ["PURPOSES", "Address", "Limits", "Outbound", "Purpose", "Target"]
