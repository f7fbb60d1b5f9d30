package bus

const roleVariable = "PARLEY_BUS_TEST_ROLE"

var roles = map[string]func() error{}
