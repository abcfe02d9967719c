"""The programs of the runtime, configured by the document that the operator or `cortex run` writes.

`serve` runs a RealtimeAPI; `gateway` and `consume` run an AsyncAPI; `destroy` deletes the queue of a deleted AsyncAPI.
"""

import argparse
import os
import sys
from pathlib import Path

from cortex_api import contract

Parser = argparse.ArgumentParser


def main(arguments: list[str] | None = None) -> int:
    """Run a program. Return the exit status: 0 after a drain, 1 when the API can't start."""
    parser = Parser(
        prog="python -m cortex_runtime",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, of_document: bool = True) -> Parser:
        added: Parser = commands.add_parser(
            name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        if of_document:
            added.add_argument(
                "--config", type=Path, default=Path(contract.DOCUMENT_PATH), help="the API's document"
            )
        added.add_argument(
            "--termination-log",
            type=Path,
            default=Path(contract.TERMINATION_LOG),
            help="file for the reason of a failure",
        )
        return added

    serve = command(contract.SERVE_COMMAND, "serve a RealtimeAPI")
    _add_code_options(serve)
    _add_port_options(serve, with_port=True)
    serve.add_argument(
        "--grpc-port",
        type=int,
        default=contract.GRPC_PORT,
        help="port of gRPC, where handler.protocols.grpc is set",
    )
    serve.add_argument(
        "--split",
        type=Path,
        default=os.environ.get(contract.SPLIT_VARIABLE, f"{contract.SPLIT_DIRECTORY}/{contract.SPLIT_FILE}"),
        help="file that says which requests the candidate answers",
    )
    _add_drain_options(serve)
    consume = command(contract.CONSUME_COMMAND, "run the jobs of an AsyncAPI")
    _add_code_options(consume)
    _add_port_options(consume, with_port=False)
    consume.add_argument(
        "--grace", type=float, default=60.0, help="seconds for running jobs to finish after SIGTERM"
    )
    gateway = command(contract.GATEWAY_COMMAND, "accept the jobs of an AsyncAPI")
    _add_port_options(gateway, with_port=True)
    _add_drain_options(gateway)
    destroy = command(
        contract.DESTROY_COMMAND,
        "delete the queue of an AsyncAPI, with all jobs and results",
        of_document=False,
    )
    destroy.add_argument("--queue", required=True, help="name of the queue: cortex-NAMESPACE-NAME")
    options = vars(parser.parse_args(arguments))
    for name in ("config", "project", "packed", "models", "split"):
        if options.get(name) is not None:
            options[name] = options[name].absolute()
    return _run(options.pop("command"), options)


def _add_code_options(command: Parser) -> None:
    command.add_argument(
        "--project", type=Path, default=Path(contract.PROJECT_FOLDER), help="folder of the code"
    )
    command.add_argument(
        "--packed", type=Path, help="folder with an archive of the project; it is unpacked into --project"
    )
    command.add_argument(
        "--models", type=Path, default=Path(contract.MODELS_FOLDER), help="folder for downloaded models"
    )
    command.add_argument(
        "--reload", action="store_true", help="restart the workers when a file of the project changes"
    )
    command.add_argument(
        "--manifest", type=Path, help="file of the project that --reload ignores: --config has its content"
    )
    command.add_argument(
        "--development",
        nargs="?",
        type=int,
        const=contract.DEVELOPMENT_PORT,
        metavar="PORT",
        help="receive the project from `cortex dev` on a port of the loopback interface",
    )
    command.add_argument(
        "--show-tracebacks",
        action="store_true",
        help="responses with status 500 contain the traceback; for development",
    )


def _add_port_options(command: Parser, with_port: bool) -> None:
    command.add_argument(
        "--host", default=os.environ.get(contract.HOST_VARIABLE, "0.0.0.0"), help="address to listen on"
    )
    if with_port:
        command.add_argument("--port", type=int, default=contract.PORT, help="port of the API")
    command.add_argument(
        "--admin-port", type=int, default=contract.ADMIN_PORT, help="port of health, readiness and metrics"
    )


def _add_drain_options(command: Parser) -> None:
    command.add_argument(
        "--drain-delay",
        type=float,
        default=contract.DRAIN_DELAY,
        help="after SIGTERM, accept connections until none has arrived for this number of seconds; 0: none",
    )
    command.add_argument(
        "--drain-limit",
        type=float,
        default=os.environ.get(contract.DRAIN_LIMIT_VARIABLE, contract.DRAIN_LIMIT),
        help="seconds after SIGTERM for which connections are accepted at most",
    )


def _run(command: str, options: dict[str, object]) -> int:
    """Run a program. Each is imported only if it is used."""
    given: dict[str, object] = options
    # Before onnxruntime is imported: it would start a thread at import, and send data to its vendor.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if options.get("reload") or options.get("development"):
        # A file that is changed twice within a second may keep its size, and then its first bytecode would be used.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    if command == contract.SERVE_COMMAND:
        from cortex_runtime.replica.supervisor import Options, serve

        return serve(Options(**given))  # type: ignore[arg-type]
    if command == contract.CONSUME_COMMAND:
        from cortex_runtime.jobs.consumer import ConsumerOptions, consume

        return consume(ConsumerOptions(**given))  # type: ignore[arg-type]
    if command == contract.GATEWAY_COMMAND:
        from cortex_runtime.jobs.gateway import GatewayOptions, gateway

        return gateway(GatewayOptions(**given))  # type: ignore[arg-type]
    from cortex_runtime.jobs.destroy import destroy

    return destroy(**given)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
