"""Runs the vendor's tap on a sandbox. Its SDK takes the address of the API from the environment, but not that of the token endpoint."""

import os

from streamduo.client import Client

Client.auth_endpoint = os.environ["STREAMDUO_AUTH_URL"]

import tap_streamduo  # noqa: E402

tap_streamduo.main()
