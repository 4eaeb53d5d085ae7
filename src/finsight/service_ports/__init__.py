"""What the service asks of the outside world. Adapters stand in finsight.adapters; bootstrap chooses among them.

Every method raises :class:`finsight.errors.UnreachableError` when what it asks does not answer, but those of caches.
"""

from finsight.service_ports.credentials import FailedAttempts, KeyStore, SigningKey, SigningKeys, Tickets, TokenIssuer
from finsight.service_ports.experiments import Experiment, ExperimentLog, Tried
from finsight.service_ports.queue import Backlog, Ending, JobQueue, Lease, Outcome, QueueFullError, ReusedKeyError, TooManyJobsError, Word
from finsight.service_ports.results import ArtifactStore, ResultCache
from finsight.service_ports.rules import AuditLog, Standing, Windows
from finsight.service_ports.sign_in import Attempts, NotSignedInError, Session, Sessions, SignInIssuer

__all__ = [
    "ArtifactStore",
    "Attempts",
    "AuditLog",
    "Backlog",
    "Ending",
    "Experiment",
    "ExperimentLog",
    "FailedAttempts",
    "JobQueue",
    "KeyStore",
    "Lease",
    "NotSignedInError",
    "Outcome",
    "QueueFullError",
    "ResultCache",
    "ReusedKeyError",
    "Session",
    "Sessions",
    "SignInIssuer",
    "SigningKey",
    "SigningKeys",
    "Standing",
    "Tickets",
    "TokenIssuer",
    "TooManyJobsError",
    "Tried",
    "Windows",
    "Word",
]
