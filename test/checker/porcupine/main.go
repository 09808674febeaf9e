// Judges histories with Porcupine, to trust the checker beside it: reads operations, one JSON object per line as history.ts has them, and
// prints "legal", "illegal" or "undecided" for each history. Histories are separated by empty lines.
//
// The model is a key with a value and the log index that wrote it, where that is known. Nothing is shared with wgl.ts but the meaning of an
// operation.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

type operation struct {
	Client       int     `json:"client"`
	Key          string  `json:"key"`
	Kind         string  `json:"kind"`
	Value        string  `json:"value"`
	Expected     int64   `json:"expected"`
	Call         float64 `json:"call"`
	Return       float64 `json:"return"` // null where it never returned
	Outcome      string  `json:"outcome"`
	Index        int64   `json:"index"`
	Success      bool    `json:"success"`
	SeenValue    string  `json:"seenValue"`
	SeenRevision int64   `json:"seenRevision"`
}

// What is at a key. Revision 0 with a value: written by an operation that nobody learned the index of. Last: the newest known index so far, for
// writes come in the order of their indexes.
type state struct {
	There    bool
	Value    string
	Revision int64
	Last     int64
}

// Revisions that reads saw beside a value: they tell the index of writes of unknown outcome.
type revisions map[string]int64

func model(seen revisions) porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := map[string][]porcupine.Operation{}
			for _, each := range history {
				key := each.Input.(operation).Key
				byKey[key] = append(byKey[key], each)
			}
			parts := [][]porcupine.Operation{}
			for _, part := range byKey {
				parts = append(parts, part)
			}
			return parts
		},
		Init:  func() any { return state{} },
		Step:  func(s, input, _ any) (bool, any) { return step(s.(state), input.(operation), seen) },
		Equal: func(a, b any) bool { return a == b },
	}
}

func step(s state, o operation, seen revisions) (bool, state) {
	known := o.Outcome == "ok"
	if o.Kind == "get" {
		if !o.Success {
			return !s.There, s
		}
		return s.There && s.Value == o.SeenValue && (s.Revision == 0 || s.Revision == o.SeenRevision), s
	}
	index := o.Index
	if index == 0 && o.Value != "" {
		index = seen[o.Value]
	}
	if index > 0 {
		if index <= s.Last {
			return false, s
		}
		s.Last = index
	}
	written := state{There: true, Value: o.Value, Revision: index, Last: s.Last}
	switch o.Kind {
	case "put":
		return true, written
	case "delete":
		return !known || o.Success == s.There, state{Last: s.Last}
	case "compareAndPut":
		equal := s.There && s.Revision == o.Expected
		if o.Expected == 0 {
			equal = !s.There
		}
		if !known {
			if equal {
				return true, written
			}
			// Whoever read it knows that it did write.
			return index == 0, s
		}
		if o.Success || equal {
			return o.Success && equal, written
		}
		if s.There != (o.SeenRevision > 0) {
			return false, s
		}
		return !s.There || s.Revision == 0 || s.Revision == o.SeenRevision, s
	}
	panic("unknown kind " + o.Kind)
}

func judge(operations []operation) string {
	seen := revisions{}
	history := []porcupine.Operation{}
	for _, o := range operations {
		if o.Outcome == "refused" || (o.Outcome == "unknown" && o.Kind == "get") {
			continue
		}
		if o.Kind == "get" && o.Success {
			seen[o.SeenValue] = o.SeenRevision
		}
		end := int64(math.MaxInt64)
		if o.Outcome == "ok" {
			end = int64(o.Return * 2)
		}
		history = append(history, porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Call * 2), Return: end})
	}
	// A write of unknown outcome that never took effect is placed at the end, where nobody can tell.
	switch porcupine.CheckOperationsTimeout(model(seen), history, time.Minute) {
	case porcupine.Ok:
		return "legal"
	case porcupine.Illegal:
		return "illegal"
	}
	return "undecided"
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	operations := []operation{}
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			fmt.Println(judge(operations))
			operations = nil
			continue
		}
		var o operation
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		operations = append(operations, o)
	}
}
