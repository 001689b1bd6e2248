package smtp

import "fmt"

// stage is what a Gateway expects from its client next. What transaction there is,
// is the backend's to know.
type stage uint8

const (
	quiet         stage = iota // nothing was said yet
	talking                    // a command
	passingData                // the content behind DATA, which is passed on
	droppingData               // the same, from its first flaw on
	passingChunk               // the content behind BDAT, which is passed on
	droppingChunk              // the content behind a BDAT that was refused here
	answering                  // a SASL answer, which 334 has asked for
	asking                     // STARTTLS was reported to the engine
	shaking                    // the go-ahead was given
	done                       // the last reply was said
	stageCount
)

func (s stage) String() string {
	return [stageCount]string{"quiet", "talking", "passing data", "dropping data", "passing a chunk",
		"dropping a chunk", "answering", "asking", "shaking hands", "done"}[s]
}

// nextStages says which may follow one. Every stage but the last may be followed
// by done.
var nextStages = [stageCount][]stage{
	quiet:         {talking},
	talking:       {passingData, passingChunk, droppingChunk, answering, asking},
	passingData:   {talking, droppingData},
	passingChunk:  {talking},
	droppingChunk: {talking},
	answering:     {talking},
	asking:        {talking, shaking}, // back when TLS is unavailable
	shaking:       {talking},
}

// to is the one place where the stage changes.
func (g *Gateway) to(next stage) {
	legal := next == done && g.stage != done
	for _, s := range nextStages[g.stage] {
		legal = legal || s == next
	}
	if !legal {
		panic(fmt.Sprintf("smtp: stage %v after %v", next, g.stage))
	}
	g.stage = next
}
