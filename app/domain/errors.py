"""What can go wrong, named for what happened. The answer to each stands in `app/http/errors.py`."""

import random
from typing import ClassVar


class RotaError(Exception):
    """
    Root of all errors that callers may see.

    `code` is a stable identifier and `message` may be shown to anybody; `why` is for logs only. An error that the
    outside must not tell from its siblings shares their code and message and differs in `why`.
    """

    code: ClassVar[str] = "internal_error"
    message: str = "Something went wrong on our side."

    def __init__(self, message: str | None = None, *, why: str | None = None) -> None:
        self.message = message or type(self).message
        self.why = why
        super().__init__(self.message)


class StoredStateInvalid(RotaError):
    """A row contradicts itself; nothing is guessed."""

    code = "stored_state_invalid"


class Unavailable(RotaError):
    """Transient trouble: nothing was refused. What was asked may or may not have happened; asking again finds out."""

    code = "temporarily_unavailable"
    message = "The service cannot answer right now; nothing was lost, please try again."
    retry_after_seconds: int = 1


class TookTooLong(Unavailable):
    """A statement did not end before its deadline."""


class DeadlinePassed(Unavailable):
    """The request was not answered in the time that any may take; what it was doing was broken off."""


class RoleNotTaken(Unavailable):
    """A connection to the database does not act as the role that it was asked to; it was not used."""


class TooBusy(Unavailable):
    """More work is waiting than can be done soon; refused before any of it was begun."""

    code = "too_busy"
    message = "Too many sign-ins are waiting; please try again."

    def __init__(self, *, why: str) -> None:
        # By then those who wait now have had their turn; and who was refused together does not come again together.
        self.retry_after_seconds = random.randint(2, 5)  # noqa: S311 - no secret
        super().__init__(why=why)


class InvalidCredentials(RotaError):
    """Unknown user, wrong password, disabled user: one answer for all."""

    code = "invalid_credentials"
    message = "The username or password is wrong."


class TooManyAttempts(RotaError):
    """
    Refused before the password was looked at, and the same whether anybody has that name; `why` says which limit.

    Never an OAuth error: nothing was said of the grant.
    """

    code = "too_many_attempts"
    message = "Too many failed sign-ins; please wait before trying again."

    def __init__(self, *, retry_after_seconds: int, why: str) -> None:
        self.retry_after_seconds = retry_after_seconds
        super().__init__(why=why)


class PasswordTokenRejected(RotaError):
    """Noise, unknown, spent, replaced, expired, or of a user who is shut out: one answer for all."""

    code = "password_token_rejected"
    message = "The set-password token is not valid."


class PasswordChangeRequired(RotaError):
    """The password was right, and is good for setting another one only: with the token that this error carries."""

    code = "password_change_required"
    message = "This password is good for setting a new one only: PUT /password with the token of this answer."

    def __init__(self, token: str, *, expires_in: int) -> None:
        self.token = token
        self.expires_in = expires_in
        super().__init__()


class OneTimePasswordElsewhere(RotaError):
    """The same through a client, which gets no token for it: libraries show and log what an error says."""

    code = "password_change_required"
    message = "This password is good for setting a new one only: sign in to Rota itself with it, at POST /token."


class RefreshTokenRejected(RotaError):
    """Noise, forged, unknown, expired, ended, reused: one answer for all; the cause is in the event."""

    code = "refresh_token_rejected"
    message = "The refresh token is not valid."


class CredentialsDisagree(RotaError):
    """What a request carries is of different sessions; nothing is guessed, and nothing was done."""

    code = "credentials_disagree"
    message = "The cookie and the other token of this request are not of the same session; nothing was done."


class AccessTokenRejected(RotaError):
    """Missing, malformed, expired, or of a session that is over."""

    code = "access_token_rejected"
    message = "A valid access token is needed."


class OperatorTokenRejected(RotaError):
    """Missing, wrong, or none is set here: one answer for all."""

    code = "operator_token_rejected"
    message = "The operator's token is needed."


class NotPermitted(RotaError):
    """The caller is known and may not do this."""

    code = "not_permitted"
    message = "You may not do this."


class RegistrationClosed(NotPermitted):
    code = "registration_closed"
    message = "Registration is closed here."


class UsernameTaken(RotaError):
    code = "username_taken"
    message = "This username is taken."


class UsernameRefused(RotaError):
    code = "username_refused"
    message = "This username cannot be used."


class PasswordRefused(RotaError):
    """`reason` is a stable word for why: one of `PasswordReason`."""

    code = "password_refused"
    message = "This password cannot be used."

    def __init__(self, message: str | None = None, *, reason: str) -> None:
        self.reason = reason
        super().__init__(message, why=reason)


class SessionNotFound(RotaError):
    """No such session of this user: unknown and somebody else's are the same."""

    code = "session_not_found"
    message = "There is no such session."


class RevocationNotFound(RotaError):
    code = "revocation_not_found"
    message = "There is no such revocation."


class FingerprintRefused(RotaError):
    """It was not given for this filter and to this caller, or is none of ours."""

    code = "fingerprint_refused"
    message = "The fingerprint is not of a dry run of this filter by you: make a dry run of exactly this filter first."


class FingerprintExpired(RotaError):
    """The dry run is too long ago: what would end may be something else by now."""

    code = "fingerprint_expired"
    message = "The dry run is more than ten minutes ago: make another."


class UserNotFound(RotaError):
    code = "user_not_found"
    message = "There is no such user."


class UserDeleted(RotaError):
    """A tombstone: it can be looked at, and nothing else."""

    code = "user_deleted"
    message = "This user was deleted."


class ImportRunning(RotaError):
    """Another process has the file in hand."""

    code = "import_running"
    message = "Another process imports this file at this moment."


class ImportAltered(RotaError):
    """A file whose import was broken off is not what it was; which of its lines are done cannot be told any more."""

    code = "import_altered"
    message = "The file is not what it was when its import began."


class LastAdministrator(RotaError):
    code = "last_administrator"
    message = "This is the last administrator who can act: make another one first."


class OwnAccount(RotaError):
    """Somebody would lock themselves out, and has not said that they mean it."""

    code = "own_account"
    message = "This is your own account, and you would lose it: say allow_self=true if you mean it."


class InputInvalid(RotaError):
    """
    Input that does not parse. `message` says what is wrong and never repeats the input; `field` names the member or
    parameter, where it is one.
    """

    code = "input_invalid"
    message = "The input is not valid."

    def __init__(self, message: str | None = None, *, why: str | None = None, field: str | None = None) -> None:
        self.field = field
        super().__init__(message, why=why)


class QueryTooBroad(InputInvalid):
    """More rows would have to be read than can be in the time that a request has."""

    code = "query_too_broad"
    message = "This would take too long: narrow it, by a time range for example."


class EventNotFound(RotaError):
    code = "event_not_found"
    message = "There is no such event."


class EventNotSealed(RotaError):
    """It has happened, but no signed checkpoint covers it yet."""

    code = "event_not_sealed"
    message = "No signed checkpoint covers this event yet; please try again in some seconds."


class UnsupportedGrantType(RotaError):
    code = "unsupported_grant_type"
    message = "The grant type must be password or refresh_token."


class InvalidScope(RotaError):
    code = "invalid_scope"
    message = "The scope cannot be granted."


class FeedCursorInvalid(InputInvalid):
    """Not a cursor of ours, or of a secret that is no longer listed."""

    code = "cursor_invalid"
    message = "The cursor is not valid; begin anew with GET /revocations/snapshot."


class FeedCursorGone(RotaError):
    """A cursor of another history: of another database, or of this one before it was restored or failed over."""

    code = "cursor_gone"
    message = "This cursor is from before the database was restored or replaced; begin anew with /revocations/snapshot."


class TooManyStreams(RotaError):
    """A client has as many open streams and waiting polls as one may have."""

    code = "too_many_streams"
    message = "This client has too many open streams; close some, or try again later."
    retry_after_seconds: ClassVar[int] = 5


class ClientRejected(RotaError):
    """Unknown client, wrong or expired secret, disabled, or none named: one answer for all (RFC 6749 section 5.2)."""

    code = "invalid_client"
    message = "The client could not be authenticated."


class ClientNotPermitted(NotPermitted):
    """The client is known and has not the scope that this needs (RFC 6750 section 3.1)."""

    code = "insufficient_scope"
    message = "The client has not the scope that this needs."


class GrantNotPermitted(RotaError):
    """The client is known and may not use this grant type."""

    code = "unauthorized_client"
    message = "The client may not use this grant type."


class TokenOfAnotherClient(RotaError):
    """Genuine, and not this client's to end."""

    code = "token_of_another_client"
    message = "The token was issued to another client."


class UnsupportedTokenType(RotaError):
    """A token that ends by itself only (RFC 7009 section 2.2.1)."""

    code = "unsupported_token_type"
    message = "Tokens of clients themselves cannot be revoked: they expire, or the client is disabled."


class ClientNotFound(RotaError):
    code = "client_not_found"
    message = "There is no such client."


class ClientIdTaken(RotaError):
    code = "client_id_taken"
    message = "Another client has this client_id."


class ClientHasNoSecrets(RotaError):
    """A public client, which has none ever."""

    code = "client_is_public"
    message = "A public client has no secrets."


class UserDisabled(RotaError):
    code = "user_disabled"
    message = "The user is disabled."
