"""Are questions to the model answered, how soon, and by how many workers?"""

from .parts import EACH, WORKER, Dashboard, lines, quantiles, rate, stat

DASHBOARD = Dashboard(
    "gpt",
    "GPT",
    "Are questions to the model answered, how soon, and by how many workers?",
    (
        stat(
            "Wait for a worker",
            "Questions that could be answered now.",
            "short",
            'max(roomcast_gpt_jobs{%, state="ready"})',
            levels=(10, 50),
            alerts=("RoomcastGptWaits",),
        ),
        stat(
            "Oldest wait",
            "Of a question that could be answered.",
            "s",
            "max(roomcast_gpt_oldest_wait_seconds{%})",
            levels=(15, 60),
            alerts=("RoomcastGptWaits",),
        ),
        stat(
            "Given up",
            "Questions kept for operators.",
            "short",
            "max(roomcast_gpt_dead_jobs{%})",
            levels=(1, 50),
            alerts=("RoomcastGptDead",),
        ),
        stat(
            "Slots in use",
            "Of all workers.",
            "percentunit",
            f"sum(roomcast_gpt_answering{{%{WORKER}}}) / sum(roomcast_gpt_slots{{%{WORKER}}})",
            levels=(0.75, 0.95),
            most=1,
        ),
        stat(
            "Workers",
            "That are ready.",
            "none",
            f"sum(roomcast_ready{{%{WORKER}}})",
            levels=(1, 2),
            rising=False,
            alerts=("RoomcastNoWorkers",),
        ),
        stat(
            "Paused",
            "By an operator: `roomcast queue pause`.",
            "bool_yes_no",
            "max(roomcast_gpt_paused{%})",
            levels=(1,),
            alerts=("RoomcastGptPaused",),
        ),
        lines(
            "Open questions",
            "Of the whole cluster: `ready` waits for a worker, `waiting` behind others of the room or user.",
            "short",
            ("{{state}}", "max by (state) (roomcast_gpt_jobs{%})"),
            stacked=True,
            alerts=("RoomcastGptWaits",),
        ),
        lines(
            "Answers by result",
            "`ok` and everything else.",
            "ops",
            ("{{result}}", rate("roomcast_gpt_replies_total", "result")),
            stacked=True,
            alerts=("RoomcastGptFails",),
        ),
        lines(
            "How long a question waits", "Until a worker takes it.", "s", *quantiles("roomcast_gpt_wait_seconds"), levels=(15, 60)
        ),
        lines(
            "Until the first token",
            "From the call of the model.",
            "s",
            *quantiles("roomcast_gpt_first_token_seconds"),
            levels=(5, 15),
            alerts=("RoomcastGptSlow",),
        ),
        lines(
            "How long an answer takes",
            "From a worker's claim to the end.",
            "s",
            *quantiles("roomcast_gpt_answer_duration_seconds"),
        ),
        lines(
            "Answering now",
            "By worker.",
            "short",
            (EACH, f"sum by (pod, instance) (roomcast_gpt_answering{{%{WORKER}}})"),
            stacked=True,
        ),
        lines(
            "Claims",
            "By how they ended: for good, tried again later, lost to another worker, or to Redis.",
            "ops",
            ("{{result}}", rate("roomcast_gpt_attempts_total", "result")),
        ),
        lines("Tokens", "Tokens a second by kind.", "short", ("{{kind}}", rate("roomcast_gpt_tokens_total", "kind"))),
    ),
)
