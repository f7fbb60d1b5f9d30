package figures

// Demand is the figure of authentication: 0 where clients do not, 1 where they may, 2 where they must.
func Demand(asked, optional bool) uint64 {
	switch {
	case !asked:
		return 0
	case optional:
		return 1
	}
	return 2
}
