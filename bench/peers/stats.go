package peers

import (
	"math"
	"slices"
)

// Spread is what the samples of one figure are like.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`  // lower quartile
	High   float64 `json:"high"` // upper quartile
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spread(samples []float64) Spread {
	s := slices.Sorted(slices.Values(samples))
	return Spread{
		Median: quantile(s, 0.5),
		Low:    quantile(s, 0.25),
		High:   quantile(s, 0.75),
		Min:    quantile(s, 0),
		Max:    quantile(s, 1),
	}
}

// quantile interpolates between the samples, as spreadsheets and R do (type 7). Of
// none it is not a number.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}
