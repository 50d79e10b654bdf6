"""Every Redis key, a function each. Nothing else in Tapewatch spells a key.

All keys start with the prefix of the settings. "life" is the id of one life of a topic: a topic that was deleted
and made again has another, so that nothing of the old one counts as already seen. Lua scripts get whole keys, or
the prefix and the life, and follow the comments here.

| key | type | expires |
|---|---|---|
| marks | hash partition -> offset | never (one small hash a life) |
| seen | hash digest -> place, two generations | after the dedupe time |
| outcomes | hash outcome -> count | never |
| watermark | hash partition -> event time, and `<partition>:at` -> wall time, in ms | a day |
| trend | hash `<start>:<field>` -> count | the slice's end + the bucket's span |
| entities | zset entity -> event time of its last headline, ms | three days |
| feed | zset JSON of a scored headline -> event time, ms | three days |
| story... | see stories.lua | the story time |
| tally | hash `<start in seconds>` -> signals, a slice of a kind and entity | the slice's end + 6 hours |
| flagged | zset JSON of a signal -> event time, ms; of a kind alone: zset entity -> time of its last | 6 hours |
| alert, alerts, active | see transition.lua | never (bounded) |
| periods | list `from:to` in ms of an entity's incidents, `to` empty while one lasts | 7 hours after the last |
| outbox | list of publications, one a pipeline and partition | never (drained) |
| account, terminal | `payments:account:...`, a string: a log, see payments.lua | 150 days after its last record |
| payments | the keys below, each `payments:<name>...` | |
| payments:known | hash digest -> what a label needs of a payment, see labels.lua | 150 days |
| payments:waiting | hash digest -> label without a payment; `:due` zset, `:dead` dead letters | never (a day each) |
| payments:matured | hash `<decision>:<verdict>` -> labelled payments of a day, `:cents` their amounts | 400 days |
| payments:receipts | count of receipts; `:<number>` hash digest -> receipt, bounded by number | never; 7 days |
| payments:cases | hash digest -> receipt of a review or block, a key a day | 30 days |
| payments:queue | zset digest of a review or block without a label -> event time, ms | never (bounded) |
| met | hash item -> `<ms of the latest interaction>:<flags>`, see recommendations.lua | never (bounded) |
| catalogue | hash item -> `<ms>:<JSON>` of its latest catalogue record | never (the catalogue) |
| version | count of changes of the catalogue | never |
| asked | hash item -> interactions on that day (days since 1970) | 61 days after it |
| ever, first | hash item -> interactions in all; ms of its first one | never (the catalogue) |
| shown | JSON of the list that a customer was last given | 30 days |
| worker | JSON of a worker's heartbeat | 15 s |
| workers | zset of heartbeat keys -> time of the last beat, s | a day |
| replay | JSON: which sample `up` replays, and whether it is paused | 15 s |
"""

from __future__ import annotations

MARKET = "market"  # the entity that stands for all headlines


class Keys:
    """The keys under one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def marks(self, topic: str, life: str) -> str:
        """High-water offsets of the effects that are done, one field a partition."""
        return f"{self.prefix}:marks:{topic}:{life}"

    def seen(self, topic: str, life: str) -> str:
        """Ids that were met, the current generation; `:old` is the one before, `:since` when this one began."""
        return f"{self.prefix}:seen:{topic}:{life}"

    def outcomes(self, pipeline: str) -> str:
        """How many records of a pipeline ended in which outcome."""
        return f"{self.prefix}:outcomes:{pipeline}"

    def watermark(self, topic: str) -> str:
        """The largest event time a partition of a topic has shown, and when."""
        return f"{self.prefix}:watermark:{topic}"

    def trend(self, entity: str, size: str, slice_start: int) -> str:
        """Trend buckets of one entity and one bucket size, a slice of many buckets a key."""
        return f"{self.prefix}:trend:{size}:{entity}:{slice_start}"

    def entities(self) -> str:
        """Entities by the event time of their last headline."""
        return f"{self.prefix}:entities"

    def feed(self, entity: str) -> str:
        """The newest scored headlines of an entity (or of the market)."""
        return f"{self.prefix}:feed:{entity}"

    def tally(self, kind: str, entity: str, slice_start: int) -> str:
        """Signals of one kind about one entity (`market`: about any) by minute, a slice of many minutes a key."""
        return f"{self.prefix}:tally:{kind}:{entity}:{slice_start}"

    def flagged(self, kind: str, entity: str = "") -> str:
        """The newest signals of a kind about an entity; without one, the entities that there were signals about."""
        return f"{self.prefix}:flagged:{kind}" + (f":{entity}" if entity else "")

    def alert(self, alert: str) -> str:
        """One alert: its latest record, and what judged it."""
        return f"{self.prefix}:alert:{alert}"

    def alerts(self) -> str:
        """Alerts by the time of their last transition."""
        return f"{self.prefix}:alerts"

    def active(self) -> str:
        """Fingerprint -> alert, for the alerts that are not resolved."""
        return f"{self.prefix}:alerts:active"

    def periods(self, kind: str, entity: str) -> str:
        """When alerts of this kind about an entity were active: that time is no part of what is usual."""
        return f"{self.prefix}:alerts:periods:{kind}:{entity}"

    def outbox(self, pipeline: str, partition: int) -> str:
        """What a pipeline still has to publish because of changes that only the store knew."""
        return f"{self.prefix}:outbox:{pipeline}:{partition}"

    def payments(self, what: str) -> str:
        """State of the payments; `what` is the rest of a key in the table above."""
        return f"{self.prefix}:payments:{what}"

    def account(self, ref: str) -> str:
        """The log of an account's payments and their labels."""
        return f"{self.prefix}:payments:account:{ref}"

    def terminal(self, ref: str) -> str:
        """The log of a terminal's payments and their labels."""
        return f"{self.prefix}:payments:terminal:{ref}"

    def met(self, customer: str) -> str:
        """What a customer has met, owns and dismissed."""
        return f"{self.prefix}:reco:customer:{customer}"

    def catalogue(self) -> str:
        """The catalogue."""
        return f"{self.prefix}:reco:items"

    def version(self) -> str:
        """Grows with each change of the catalogue."""
        return f"{self.prefix}:reco:version"

    def asked(self, day: int) -> str:
        """What was asked for on one day."""
        return f"{self.prefix}:reco:day:{day}"

    def ever(self) -> str:
        """What was asked for in all."""
        return f"{self.prefix}:reco:ever"

    def first(self) -> str:
        """When each item was first met."""
        return f"{self.prefix}:reco:first"

    def shown(self, customer: str) -> str:
        """The list that a customer was last given; the empty name: what strangers get."""
        return f"{self.prefix}:reco:list:{customer}"

    def worker(self, pipeline: str, who: str) -> str:
        """The heartbeat of one worker."""
        return f"{self.prefix}:worker:{pipeline}:{who}"

    def workers(self) -> str:
        """The keys of the heartbeats, so that nobody has to search for them."""
        return f"{self.prefix}:workers"

    def replay(self) -> str:
        """What `up` replays, so that pages can say so."""
        return f"{self.prefix}:replay"
