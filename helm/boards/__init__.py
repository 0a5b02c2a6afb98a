"""The dashboards, in the order in which one looks at them."""

from . import delivery, fleet, gpt, guard, node, redis

DASHBOARDS = tuple(board.DASHBOARD for board in (fleet, delivery, node, redis, guard, gpt))
