"""``python -m serving.gateway``: settings from the environment and from flags; ``--help`` lists them."""

from __future__ import annotations

import sys

from pydantic_settings import CliApp

from serving.gateway.listening import check_port_free
from serving.gateway.settings import GatewaySettings, setting_mistakes
from share4video.errors import USER_ERROR_EXIT_CODE, UserError


def main() -> None:
    """Run one gateway. A mistake in the settings, or a port in use, is one sentence and exit 2."""
    try:
        with setting_mistakes():
            settings = CliApp.run(GatewaySettings, cli_args=sys.argv[1:])
        check_port_free(settings.host, settings.port)
        sys.argv = sys.argv[:1]  # kserve parses the command line when it is imported
        from serving.gateway.server import serve

        serve(settings)
    except UserError as error:
        print(f"share4video gateway: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR_EXIT_CODE) from None


if __name__ == "__main__":
    main()
