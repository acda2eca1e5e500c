package backend

// Asset is one output as the Outputs screen lists it: the file, the job it came
// from, and as much of what made it as a person searches by.
type Asset struct {
	Job        string   `json:"job"` // id of the job
	N          int      `json:"n"`   // number of the output in its job, from 0
	Name       string   `json:"name"`
	Owner      string   `json:"owner"`
	Group      string   `json:"group,omitempty"`
	State      JobState `json:"state"` // of the job
	Output     Output   `json:"output"`
	Finished   Time     `json:"finished"` // when the job ended, null while it runs
	InferenceS *float64 `json:"inference_s"`
	Prompt     string   `json:"prompt,omitempty"` // the prompt texts, cut to 400 bytes
	Seed       string   `json:"seed,omitempty"`   // "" when the graph has none
	Models     []string `json:"models,omitempty"` // file names, at most four
}

// AssetPage is a piece of the list of outputs: those of the newest jobs first,
// each job's in its own order.
type AssetPage struct {
	Assets []Asset `json:"assets"`
	// Next is what to give as Before for the piece that follows, "" at the end.
	Next string `json:"next"`
	// Total is how many outputs the filter selects; only with the first piece, and
	// not with a Text: -1 then.
	Total int `json:"total"`
}

// AssetFilter selects outputs. An empty field does not filter.
type AssetFilter struct {
	Limit  int        // 0: the engine's own, at most 1,000
	Before string     // Next of the piece before
	Kinds  []string   // image, video, audio, text …
	Job    string     // id, or a prefix of it
	Group  string     //
	Owner  string     //
	States []JobState // of the job
	Since  Time       // only of jobs that ended then or later, or still run
	Until  Time       // only of jobs that ended before
	// Text is words that all have to be in the file's name, the job's name, group,
	// id, owner or state, the kind, the prompt, the seed or a model.
	Text string
	// Plain leaves Prompt, Seed and Models out, which are read out of each job's
	// graph.
	Plain bool
}

// AssetRef names one output.
type AssetRef struct {
	Job string `json:"job"`
	N   int    `json:"n"`
}

// AssetFault says why something could not be done to one output.
type AssetFault struct {
	AssetRef
	Error *Failure `json:"error"`
}

// AssetsDone answers what was asked to be done to several outputs.
type AssetsDone struct {
	Done   []AssetRef   `json:"done"`
	Faults []AssetFault `json:"faults"`
}
