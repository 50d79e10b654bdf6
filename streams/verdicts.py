"""What an analyst says about a payment, as a label on `labels`: the one way in which the dashboard changes anything."""

from __future__ import annotations

import asyncio
import time

from streams import records
from streams.guard import Out
from streams.records import LabelRecord, Malformed
from streams.settings import Settings

WITHIN = 10.0  # seconds that a broker gets to answer
FRAUD, LEGIT = "fraud", "legit"


class NotSent(RuntimeError):
    """The verdict did not reach the broker; the message says why, and the analyst may try again."""


def send_verdict(
    settings: Settings, payment: str, label: str, *, by: str, account: str = "", terminal: str = ""
) -> LabelRecord:
    """Publish the label `fraud` or `legit` of a payment, and return it once all replicas have it. Raises NotSent.

    The id holds the time in ms, so that an analyst may change their mind; the label with the latest time counts.
    """
    now = time.time()
    label_record = LabelRecord(
        id=f"{payment}:{by}:{int(now * 1000)}",
        ts=records.as_time(now),
        subject="transaction",
        ref=payment,
        label=label,
        by=by,
        account=account,
        terminal=terminal,
    )
    try:
        records.check(label_record, now)
        asyncio.run(asyncio.wait_for(_publish(settings, label_record), WITHIN))
    except TimeoutError:
        raise NotSent(f"the broker at {settings.kafka} did not answer within {WITHIN:.0f} s") from None
    except Malformed as error:
        raise NotSent(str(error)) from None
    except Exception as error:
        raise NotSent(f"the broker at {settings.kafka} did not take it: {error}") from error
    return label_record


async def _publish(settings: Settings, label: LabelRecord) -> None:
    from streams.publisher import Publisher  # pages load no Kafka client before somebody decides

    publisher = Publisher(settings.kafka)
    await publisher.start()
    try:
        out = Out(settings.topic("labels"), records.key_of("labels", label), records.encode(label))
        await publisher.publish([out])
    finally:
        await publisher.stop()
