"""Runs the vendor's tap on a sandbox: its SDK takes the API's address from the environment, and the token endpoint's not."""

import os

from streamduo.client import Client

Client.auth_endpoint = os.environ["STREAMDUO_AUTH_URL"]

import tap_streamduo  # noqa: E402

tap_streamduo.main()
