"""A consortium's certificate authority, its server certificate and its sites' keys."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Clocks differ; a certificate of this minute would be none at a hospital whose clock is behind.
EARLIER = timedelta(hours=1)


@dataclass(frozen=True)
class Pair:
    """A key and what is public of it, as PEM (a certificate) or OpenSSH (a site's key)."""

    private: bytes
    public: bytes


def make_authority(name: str, days: int) -> Pair:
    """Make a certificate authority.

    Parameters
    ----------
    name : str
        Whose.
    days : int
        How long it holds.
    """
    key = _new_key()
    subject = _subject(f"{name} certificate authority")
    certificate = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA384())
    )
    return Pair(_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def make_server(authority: Pair, hosts: Sequence[str], days: int) -> Pair:
    """Make a server certificate for every name and address by which the server is reached.

    Parameters
    ----------
    authority : Pair
        Who signs it.
    hosts : sequence of str
        Names and addresses; the loopback is added.
    days : int
        How long it holds; 0 or less makes one that has expired, for tests.
    """
    key = _new_key()
    signer = serialization.load_pem_private_key(authority.private, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)  # made above
    issuer = x509.load_pem_x509_certificate(authority.public)
    names = list(dict.fromkeys([*hosts, *LOOPBACK]))
    certificate = (
        _builder(_subject(names[0][:64]), issuer.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName([_name(one) for one in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
        .sign(signer, hashes.SHA384())
    )
    return Pair(_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def make_site_key(site: str) -> Pair:
    """Make a site's key pair, as ``ssh-keygen -t ecdsa -b 384`` does."""
    key = _new_key()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return Pair(private, public + f" {site}\n".encode())


def is_site_key(public: bytes) -> bool:
    """Say whether this is the one line of a public key that Flower takes, whole."""
    if not public.startswith(b"ecdsa-sha2-nistp384 ") or b"\n" in public.strip():
        return False
    try:
        public.decode()
        serialization.load_ssh_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now - EARLIER, now + timedelta(days=days) - EARLIER))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
