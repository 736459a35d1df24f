"""Sessions and tokens: a login, a refresh token that is stolen, a token for one job, and guesses."""

from packmule.config import Settings
from packmule.coordination.redis.connection import connect
from packmule.coordination.sessions.attempts import Attempts, Pace, TooManyAttempts
from packmule.coordination.sessions.one_time import OneTime
from packmule.coordination.sessions.refresh import RefreshTokens, TokenReused
from packmule.coordination.sessions.sessions import Sessions
from packmule.coordination.sessions.tokens import Tokens

settings = Settings.from_env()
client = connect(settings.redis_url, settings.data_dir)

# A visitor logs in, gets more rights, and is thrown out.
sessions = Sessions(client, "shop", idle=3600, absolute=86_400)
mark = sessions.ending("ada")  # before the password is checked
id = sessions.start("ada", {"role": "customer"}, origin="192.0.2.7", ending=mark)
id = sessions.rotate(id, {"role": "staff"})
print(sessions.read(id).data)
print(sessions.end_all("ada"), sessions.read(id))

# An app refreshes its token; later somebody uses the old one.
refresh = RefreshTokens(client, "shop", grace=0)
stolen = refresh.begin("ada")
refresh.use(stolen)
try:
    refresh.use(stolen)
except TokenReused:
    print("one of two is a thief")

# A token that lets a browser read one job.
grant = Tokens(client, "shop").read(Tokens(client, "shop").lend("job:7", lifetime=600))
print(grant.allows("read", "job:7"), grant.allows("read", "job:8"))

# A link that is good once.
links = OneTime(client, "shop-links")
secret = links.make("ada", {"next": "/cart"})
print(links.use(secret), links.use(secret))

# Guesses.
logins = Attempts(client, "shop-logins", {"user": Pace(free=3)})
try:
    while True:
        logins.begin(user="eve")
except TooManyAttempts as refused:
    print(f"wait {refused.retry_after:.0f} s")
