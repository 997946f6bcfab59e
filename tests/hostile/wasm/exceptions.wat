(module (tag) (func (export "_start")))
