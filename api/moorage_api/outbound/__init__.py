"""The only way to send requests to configured URLs: models, MCP servers, A2A agents, sources of skills.

A connection goes to the IP address that was checked, so DNS rebinding has no effect.
A URL that another server sends (a redirect, an agent's card) is trusted less than a configured one: `Guard.check_hop`.
Proxy settings of the environment are ignored, because with a proxy we could not check the address.
"""

from moorage_api.outbound.addresses import Address, Target
from moorage_api.outbound.http_clients import Outbound
from moorage_api.outbound.policy import PURPOSES, Purpose
from moorage_api.outbound.transports import ResponseLimitError, ResponseLimits

__all__ = ["PURPOSES", "Address", "Outbound", "Purpose", "ResponseLimitError", "ResponseLimits", "Target"]
