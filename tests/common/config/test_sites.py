from common.config.sites import SiteEntry, parse_sites


def test_a_list_of_sites_is_read_and_written() -> None:
    sites = parse_sites(" b = /x y/b , a,, c=")
    assert sites == (SiteEntry("b", "/x y/b"), SiteEntry("a"), SiteEntry("c"))
    assert ",".join(map(str, sites)) == "b=/x y/b,a,c"
    assert parse_sites(" ") == ()
