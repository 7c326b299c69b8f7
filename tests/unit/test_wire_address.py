import pytest

from drumd.wire.address import (
    AddressError,
    InheritedAddress,
    TcpAddress,
    UnixAddress,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", TcpAddress("127.0.0.1", 8080)),
        (":8080", TcpAddress("0.0.0.0", 8080)),
        ("localhost:0", TcpAddress("localhost", 0)),
        ("model-1.example.org:65535", TcpAddress("model-1.example.org", 65535)),
        ("[::1]:80", TcpAddress("::1", 80)),
        ("[0:0:0:0:0:0:0:0]:80", TcpAddress("::", 80)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
        ("unix:///run/app.sock", UnixAddress("/run/app.sock")),
        ("unix:app.sock", UnixAddress("app.sock")),
        ("fd://3", InheritedAddress("3")),
        ("fd://web", InheritedAddress("web")),
    ],
)
def test_an_address_is_read_and_written_back(text: str, address: object) -> None:
    """Each form is read, and its canonical text reads back as the same address."""
    assert parse_address(text) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("8080", "0.0.0.0:8080"),
        ("localhost", "localhost:8080"),
        ("", "127.0.0.1:8080"),
        ("127.0.0.1:", "0 to 65535"),
        ("127.0.0.1:65536", "0 to 65535"),
        ("127.0.0.1:-1", "0 to 65535"),
        ("127.0.0.1:٣", "0 to 65535"),
        ("127.0.0.300:80", "no IPv4 address"),
        ("::1:80", "[::1]:80"),
        ("[::1]", "[::1]:8080"),
        ("[localhost]:80", "no IPv6 address"),
        ("my host:80", "no host name"),
        ("http://localhost:80", "no such scheme"),
        ("unix:", "unix:/run/app.sock"),
        ("unix:@abstract", "write a path"),
        ("unix:/" + "x" * 107, "108 bytes"),
        ("fd://", "fd://3"),
        ("fd://a b", "fd://3"),
    ],
)
def test_a_wrong_address_is_refused_with_what_to_write(text: str, hint: str) -> None:
    """A wrong bind's error names it and says what to write instead."""
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert str(caught.value).startswith(f"cannot use bind {text!r}: ")
    assert hint in str(caught.value)
