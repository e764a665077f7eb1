"""Hosts that hand on what anybody gives them: known ways to carry data out.

A rule that names one of them lets a program speak to whomever it likes behind it, since the host's name says nothing
about who reads there. None of them is bad in itself; whoever allows one should have meant to. The table is our own and
cannot be complete: its use is to ask, not to protect.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from outgate.model.names import DomainName, HostPattern


class ChannelKind(StrEnum):
    """What makes a host a way out."""

    PASTE = "paste"
    REQUEST_BIN = "request_bin"
    TUNNEL = "tunnel"
    FILE_DROP = "file_drop"
    ENCRYPTED_DNS = "encrypted_dns"
    CHAT = "chat"
    STORAGE = "storage"
    GIST = "gist"
    MAIL = "mail"
    FORM = "form"
    PROXY = "proxy"


WHY: Final[dict[ChannelKind, str]] = {
    ChannelKind.PASTE: "anybody can put text there and read it elsewhere, without an account",
    ChannelKind.REQUEST_BIN: "it records every request for whoever made the address, paths and bodies and all",
    ChannelKind.TUNNEL: "its names lead to programs on anybody's own machine",
    ChannelKind.FILE_DROP: "anybody can leave files there for others to fetch",
    ChannelKind.ENCRYPTED_DNS: "it looks up any name, inside a connection that no policy reads: data can leave in the "
    "names",
    ChannelKind.CHAT: "whoever has a bot's token or a webhook's address can post to rooms of their own",
    ChannelKind.STORAGE: "every customer of the provider has storage there, and the rule cannot tell them apart",
    ChannelKind.GIST: "any account can publish there, with a token that need not be yours",
    ChannelKind.MAIL: "whoever has a key of it can send mail to anybody",
    ChannelKind.FORM: "what is sent there is mailed to, or kept for, whoever made the form",
    ChannelKind.PROXY: "it fetches any address on behalf of whoever asks",
}
"""Why each kind is one, as the end of a sentence about the host."""

_HOSTS: Final[dict[ChannelKind, str]] = {
    ChannelKind.PASTE: (
        "pastebin.com paste.ee hastebin.com dpaste.com dpaste.org ix.io sprunge.us termbin.com paste.rs rentry.co "
        "rentry.org ghostbin.com privatebin.net controlc.com justpaste.it 0bin.net bpa.st clbin.com p.ip.fi "
        "paste.debian.net paste.mozilla.org"
    ),
    ChannelKind.REQUEST_BIN: (
        "webhook.site requestbin.com pipedream.net hookbin.com beeceptor.com requestcatcher.com requestinspector.com "
        "postb.in mockbin.org mockbin.io ptsv2.com ptsv3.com interact.sh oast.pro oast.live oast.site oast.online "
        "oast.fun oast.me burpcollaborator.net oastify.com canarytokens.com dnslog.cn ceye.io bxss.me httpbin.org "
        "postman-echo.com typedwebhook.tools smee.io svix.com hookdeck.com"
    ),
    ChannelKind.TUNNEL: (
        "ngrok.io ngrok.app ngrok-free.app ngrok-free.dev ngrok.dev trycloudflare.com cfargotunnel.com loca.lt "
        "localtunnel.me serveo.net localhost.run lhr.life pagekite.me bore.pub tunnelto.dev telebit.io zrok.io "
        "playit.gg pinggy.io pinggy.link devtunnels.ms tunnels.api.visualstudio.com ts.net localxpose.io loclx.io "
        "portmap.io packetriot.net localto.net expose.dev sharedwithexpose.com"
    ),
    ChannelKind.FILE_DROP: (
        "transfer.sh file.io 0x0.st gofile.io anonfiles.com bashupload.com temp.sh tmpfiles.org catbox.moe "
        "litterbox.catbox.moe wetransfer.com we.tl sendspace.com mediafire.com mega.nz mega.io pixeldrain.com "
        "uguu.se oshi.at filebin.net keep.sh send.vis.ee wormhole.app dropbox.com dropboxusercontent.com "
        "drive.google.com imgur.com ufile.io easyupload.io dropmefiles.com croc.schollz.com"
    ),
    ChannelKind.ENCRYPTED_DNS: (
        "dns.google dns.google.com cloudflare-dns.com one.one.one.one dns.quad9.net doh.opendns.com "
        "dns.nextdns.io dns.adguard-dns.com dns.adguard.com doh.cleanbrowsing.org dns.mullvad.net "
        "freedns.controld.com doh.dns.sb dns.alidns.com doh.pub doh.li dns0.eu doh.libredns.gr dns.switch.ch"
    ),
    ChannelKind.CHAT: (
        "hooks.slack.com slack.com api.telegram.org discord.com discordapp.com webhook.office.com outlook.office.com "
        "chat.googleapis.com api.pushover.net ntfy.sh api.pushbullet.com gotify.net matrix.org maker.ifttt.com "
        "hooks.zapier.com hook.make.com api.twilio.com"
    ),
    ChannelKind.STORAGE: (
        "s3.amazonaws.com storage.googleapis.com storage.cloud.google.com firebaseio.com "
        "firebasestorage.googleapis.com firebasestorage.app blob.core.windows.net file.core.windows.net "
        "dfs.core.windows.net queue.core.windows.net "
        "table.core.windows.net r2.cloudflarestorage.com r2.dev digitaloceanspaces.com backblazeb2.com wasabisys.com "
        "linodeobjects.com vultrobjects.com aliyuncs.com myqcloud.com supabase.co storjshare.io web3.storage "
        "workers.dev pages.dev"
    ),
    ChannelKind.GIST: "gist.github.com gist.githubusercontent.com api.github.com gitlab.com snippets.bitbucket.org",
    ChannelKind.MAIL: (
        "api.sendgrid.com api.mailgun.net api.eu.mailgun.net api.postmarkapp.com api.mailjet.com api.resend.com "
        "api.sparkpost.com mandrillapp.com api.brevo.com smtp.gmail.com"
    ),
    ChannelKind.FORM: (
        "formspree.io formsubmit.co getform.io formcarry.com docs.google.com forms.gle script.google.com "
        "airtable.com api.airtable.com api.notion.com"
    ),
    ChannelKind.PROXY: (
        "translate.goog translate.googleusercontent.com web.archive.org archive.ph r.jina.ai allorigins.win "
        "corsproxy.io cors-anywhere.herokuapp.com 12ft.io googleusercontent.com"
    ),
}


@dataclass(frozen=True, slots=True)
class Channel:
    """A host of the table. Whatever lies below its name belongs to it."""

    name: DomainName
    kind: ChannelKind

    @property
    def why(self) -> str:
        """The end of a sentence about the host."""
        return WHY[self.kind]


CHANNELS: Final[dict[DomainName, Channel]] = {
    DomainName(name): Channel(DomainName(name), kind) for kind, names in _HOSTS.items() for name in names.split()
}
_ABOVE: Final[dict[str, Channel]] = {}
"""Name → the first channel below it: what a wildcard over that name lets through."""


def parents_of(name: str) -> Iterator[str]:
    """Every name above ``name``, the nearest first."""
    _, dot, parent = name.partition(".")
    while dot:
        yield parent
        _, dot, parent = parent.partition(".")


for _name, _channel in CHANNELS.items():
    for _parent in parents_of(_name):
        _ABOVE.setdefault(_parent, _channel)


def find_channel(pattern: HostPattern) -> Channel | None:
    """The channel that ``pattern`` opens: a host of the table, one below such a host, or a wildcard over one."""
    for name in (pattern.name, *parents_of(pattern.name)):
        found = CHANNELS.get(DomainName(name))
        if found is not None:
            return found
    return _ABOVE.get(pattern.name) if pattern.is_wildcard else None
