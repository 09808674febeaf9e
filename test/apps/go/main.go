// A replicated store of registers in Go, with no more than its own library: `PORT=8080 DATA_DIR=./data ./app`, and beside it
// `barge serve --app-url http://127.0.0.1:8080`. Commands: `set KEY VALUE`, `append KEY VALUE`, `cas KEY OLD NEW`. Query: `get KEY`.
// The state is in memory; each call of UpdateEntries is a line of a journal, synced before it is answered.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
)

type entry struct {
	Index uint64
	Cmd   []byte
}

// Of the journal: the entries of one call, or, as its first line, the whole state.
type line struct {
	Index   uint64
	Entries []entry
	Items   map[string]string
	Handle  int
}

type result struct{ Result []byte }

var (
	mu         sync.Mutex
	index      uint64
	items      = map[string]string{}
	journal    *os.File
	folder     = os.Getenv("DATA_DIR")
	handles    = map[int][]byte{} // Open ones: the state as it was.
	lastHandle = os.Getpid() << 20
)

// Total: what makes no sense gives a result, as it is in the log of all nodes.
func apply(command string) string {
	words := append(strings.Split(strings.ToValidUTF8(command, "?"), " "), "", "", "")
	op, key, value, next := words[0], words[1], words[2], words[3]
	switch found := items[key]; {
	case op == "cas" && found != value:
		return "no " + found
	case op == "cas":
		items[key] = next
	case op == "set":
		items[key] = value
	case op == "append":
		items[key] = found + value + ","
		return items[key]
	default:
		return "error: unknown command"
	}
	return "ok"
}

func (l line) apply() (results []result) {
	if l.Items != nil {
		items, index = l.Items, l.Index
	}
	for _, e := range l.Entries {
		results = append(results, result{})
		if e.Index > index {
			index, results[len(results)-1].Result = e.Index, []byte(apply(string(e.Cmd)))
		}
	}
	return
}

func state() line { return line{Index: index, Items: items} }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (l line) write(file *os.File) {
	must(json.NewEncoder(file).Encode(l))
	must(file.Sync())
}

// A new journal that begins with the state, in the place of the old one once it is whole.
func begin() {
	fresh, err := os.Create(folder + "/journal.new")
	must(err)
	state().write(fresh)
	must(os.Rename(fresh.Name(), folder+"/journal"))
	parent, err := os.Open(folder)
	must(err)
	must(parent.Sync())
	journal = fresh
}

func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	must(err) // It broke off: no answer is an answer.
	mu.Lock()
	defer mu.Unlock()
	given := line{}
	json.Unmarshal(body, &given)
	w.Header().Set("content-type", "application/json")
	switch r.URL.Path[1:] {
	case "Ready", "ReleaseSnapshot":
		delete(handles, given.Handle)
	case "LastLogIndex":
		fmt.Fprintf(w, `{"LastLogIndex":%d}`, index)
	case "UpdateEntries":
		// Something between was lost, or this is not the application that the daemon takes it for.
		if r.Header.Get("barge-previous-index") != fmt.Sprint(index) {
			http.Error(w, "there is a gap", 409)
			return
		}
		line{Entries: given.Entries}.write(journal)
		json.NewEncoder(w).Encode(map[string][]result{"Results": line{Entries: given.Entries}.apply()})
	case "Read":
		io.WriteString(w, items[strings.TrimPrefix(string(body), "get ")])
	case "PrepareSnapshot":
		lastHandle++
		handles[lastHandle], _ = json.Marshal(state())
		fmt.Fprintf(w, `{"Handle":%d}`, lastHandle)
	case "SaveSnapshot":
		w.Write(handles[given.Handle])
	case "RecoverFromSnapshot":
		must(json.Unmarshal(body, &given))
		given.apply()
		begin()
	default:
		http.NotFound(w, r)
	}
}

func main() {
	must(os.MkdirAll(folder, 0o755))
	text, _ := os.ReadFile(folder + "/journal")
	for _, part := range bytes.SplitAfter(text, []byte("\n")) {
		if l := (line{}); json.Unmarshal(part, &l) == nil {
			l.apply() // One that is not whole was never answered.
		}
	}
	begin()
	must(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), http.HandlerFunc(answer)))
}
