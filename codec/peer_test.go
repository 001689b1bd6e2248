package codec

import (
	"net/netip"
	"testing"
)

func TestPeerKnowsBothSides(t *testing.T) {
	remote, local := netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("[2001:db8::1]:25")
	p := NewPeer(433, remote, local)
	text, err := p.ID.MarshalText()
	if p.Remote != remote || p.Local() != local || err != nil || string(text) != "c1" {
		t.Errorf("%v, %v, %s, %v", p.Remote, p.Local(), text, err)
	}
	if zero := (&Peer{}).Local(); zero.IsValid() {
		t.Errorf("of none: %v", zero)
	}
}
