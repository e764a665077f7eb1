"""All targets, in the order of the table in docs/fuzzing.md."""

from typing import Final

from fuzz.target import Target
from fuzz.targets import box, dns, front, handshake, http, local, names, packets, relay, tar

TARGETS: Final = (
    Target(
        "dns_query",
        "wire.dns_query.parse_query, wire.dns.host_name, wire.dns_reply",
        "dnspython reads the same name, type and id; what goes upstream holds the name and the type and nothing else "
        "of the devbox's; replies are DNS again and fit",
        dns.read_query,
        2500,
    ),
    Target(
        "dns_answer",
        "wire.dns_answer.parse_answer, parse_relayed_answer",
        "only addresses that the answer holds, without repeats, within the bound; what is relayed reads back as the "
        "same records",
        dns.read_answer,
        2500,
    ),
    Target(
        "dns_name",
        "wire.dns.read_name, skip_name",
        "walks end, within 255 bytes and the message; a name that was read is in normal form",
        dns.read_names,
        6000,
    ),
    Target(
        "dns_stream",
        "wire.dns_stream.MessageStream",
        "the same messages however the bytes are cut; never more than one unfinished message is held",
        dns.read_stream,
        4000,
    ),
    Target(
        "client_hello",
        "wire.client_hello.ClientHelloReader",
        "the same verdict however the bytes are cut, and no later byte changes it; OpenSSL's server serves the same "
        "name, and is not ready before we are",
        handshake.read_hello,
        1500,
    ),
    Target(
        "first_bytes",
        "wire.first_bytes.classify_first_bytes",
        "more bytes never change a verdict; what OpenSSL takes for a hello is TLS, what h11 takes for a request is HTTP",
        handshake.classify,
        2000,
    ),
    Target(
        "http_requests",
        "wire.http1.RequestReader, wire.http1_head.read_head (h11)",
        "the same requests however the bytes are cut; h11 and the standard library read what goes upstream as the very "
        "requests that were judged, and nothing behind them",
        http.read_requests,
        700,
    ),
    Target(
        "http_responses",
        "wire.http1_response.ResponseTracker",
        "the same state however the bytes are cut; never complete while a client (h11) waits for more",
        http.follow_responses,
        2500,
    ),
    Target(
        "relay_flow",
        "wire.relay_flow.RelayFlow, wire.relay_requests.RequestRelay",
        "no byte upstream before its verdict or behind a denial; upstream is only ever asked for the allowed host; TLS "
        "goes out as it came and names that host to OpenSSL; the same end however the bytes are cut",
        relay.relay,
        600,
    ),
    Target(
        "host_name",
        "model.names.parse_domain_name, parse_host_pattern",
        "the normal form is a fixed point, ASCII, and differs from the spelling in case and one last dot only: nothing "
        "is folded into what it looks like",
        names.read_name,
        8000,
        bytes_max=400,
    ),
    Target(
        "denied_packet",
        "dataplane.nflog.parse_log",
        "any packet in the kernel's frame is read, or left out alone; its ends and ports are bytes of it",
        packets.read_packet,
        5000,
        bytes_max=128,
    ),
    Target(
        "netlink",
        "dataplane.netlink.parse_messages, parse_attributes",
        "any datagram gives packets or NetlinkError",
        packets.read_datagram,
        8000,
        bytes_max=512,
    ),
    Target(
        "tar_stream",
        "runtime.tar_stream.TarStream",
        "the same entries however the bytes come and with or without seeking; data are the bytes at their offset; one "
        "entry's headers hold a MiB at most",
        tar.read_entries,
        1200,
        bytes_max=8192,
    ),
    Target(
        "layer_tar",
        "runtime.layer_tar.unpack_layer",
        "nothing is made or changed outside the layer; no device, no foreign id; within the bounds",
        tar.unpack,
        500,
        bytes_max=8192,
        needs_root=True,
    ),
    Target(
        "image",
        "runtime.image_archive, runtime.image_manifest",
        "a manifest, or LayerError or TarError",
        tar.read_image,
        1500,
        bytes_max=8192,
    ),
    Target(
        "build_notes",
        "runtime.build_images (what buildah left)",
        "names of layers are ids and never paths; an environment without NUL; or SandboxError",
        box.read_build_notes,
        600,
        bytes_max=1024,
    ),
    Target(
        "file_words",
        "runtime.box_helper.BoxHelper.read_word",
        "words that were said, in order, each below 128 characters",
        box.read_words,
        1500,
        bytes_max=512,
    ),
    Target(
        "complaints",
        "runtime.box_file_scripts, agent.build_dockerfile.find_reason",
        "one printable line of bounded length, whatever the program complained of",
        box.explain_complaint,
        4000,
    ),
    Target(
        "exec_output",
        "runtime.output.read_last_lines",
        "the last lines and no others, within the bound",
        box.read_output,
        2500,
    ),
    Target(
        "exec_text",
        "control.output_streams.decode_pieces",
        "the same text however the bytes are cut, and whoever goes on behind a piece misses and repeats nothing",
        box.read_text,
        800,
        bytes_max=256,
    ),
    Target(
        "exec_status",
        "runtime.execution_files.ExecutionFiles.read_status",
        "a status from 0 to 255 that was written as such, or none",
        box.read_status,
        4000,
        bytes_max=64,
    ),
    Target(
        "process_name",
        "runtime.proc_stat.parse_stat",
        "whatever a process calls itself, the fields behind its name are the kernel's",
        box.read_process,
        8000,
        bytes_max=64,
    ),
    Target(
        "front_answer",
        "front.upstream (h11), front.heads, front.proxy (aiohttp)",
        "the client reads the body that the devbox sent, or its connection breaks; the answer to its next request is "
        "another devbox's own",
        front.answer,
        250,
    ),
    Target(
        "front_request",
        "front.admission, front.proxy (aiohttp), front.heads",
        "a devbox hears whole requests, one for each connection; a client inside a devbox reaches the one tunnel that "
        "it was let through to",
        front.ask,
        250,
    ),
    Target(
        "tunnel_name",
        "model.tunnels.parse_tunnel_name",
        "one spelling for each tunnel and port",
        local.read_tunnel_name,
        8000,
        bytes_max=256,
    ),
    Target(
        "local_requests",
        "agent.dial_service, agent.terminals, front.listeners",
        "documents are taken or refused by the errors that their readers catch, and are written as they were read",
        local.read_local,
        5000,
        bytes_max=1024,
    ),
)
