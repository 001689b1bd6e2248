package peers

import (
	"math"
	"testing"
)

func TestSpreadIsAsInR(t *testing.T) {
	for _, test := range []struct {
		samples []float64
		want    Spread
	}{
		{[]float64{7}, Spread{7, 7, 7, 7, 7}},
		{[]float64{2, 1}, Spread{1.5, 1.25, 1.75, 1, 2}},
		{[]float64{5, 1, 4, 2, 3}, Spread{3, 2, 4, 1, 5}},
		{[]float64{10, 1, 2, 4}, Spread{3, 1.75, 5.5, 1, 10}}, // quantile(c(1, 2, 4, 10))
	} {
		if got := spread(test.samples); got != test.want {
			t.Errorf("spread(%v) = %+v, want %+v", test.samples, got, test.want)
		}
	}
}

func TestSpreadLeavesTheRoundsInTheirOrder(t *testing.T) {
	samples := []float64{3, 1, 2}
	spread(samples)
	if samples[0] != 3 || samples[1] != 1 {
		t.Errorf("samples are now %v", samples)
	}
}

func TestNothingHasNoMedian(t *testing.T) {
	if got := spread(nil).Median; !math.IsNaN(got) {
		t.Errorf("got %v", got)
	}
}
