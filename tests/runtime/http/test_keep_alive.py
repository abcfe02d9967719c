"""The server keeps an idle connection open for longer than the proxies in front of it."""

from cortex_runtime.http.server import plain

LONGEST_OF_LOAD_BALANCERS_S = 600


def test_a_proxy_closes_an_idle_connection_before_the_server_does():
    async def app(scope, receive, send):
        raise AssertionError

    assert plain(app).timeout_keep_alive > LONGEST_OF_LOAD_BALANCERS_S
