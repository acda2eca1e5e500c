package sketch

import "math"

// stars is the light of the stars at a point.
func stars(seed uint64, x, y, px, density float64) float64 {
	const cell = 0.022
	i, j := math.Floor(x/cell), math.Floor(y/cell)
	if lattice(seed, int(i), int(j)) > density {
		return 0
	}
	cx := (i + 0.2 + 0.6*lattice(seed+1, int(i), int(j))) * cell
	cy := (j + 0.2 + 0.6*lattice(seed+2, int(i), int(j))) * cell
	big := math.Pow(lattice(seed+3, int(i), int(j)), 6)
	r := max(0.0011+0.0022*big, px*0.7)
	d := math.Hypot(x-cx, y-cy)
	return (0.35 + 0.65*big) * math.Exp(-d*d/(r*r)) * min(0.0016/r*1.3, 1)
}

// ridge is the height of a line of hills at x: rounded valleys, sharp tops.
func ridge(seed uint64, x float64, octaves int) float64 {
	var sum, amp, norm float64 = 0, 1, 0
	for o := range octaves {
		n := noise(seed+uint64(o)*131, x, 3.7)
		sum += amp * (1 - math.Abs(2*n-1))
		norm += amp
		amp *= 0.47
		x = x*2.1 + 5.3
	}
	return sum / norm
}

// hills: layers of hills behind each other, each one nearer and darker, under
// a sun, with mist between them and firs in front.
type hills struct {
	p          palette
	seed       uint64
	sunX, sunY float64
	sunR       float64
	layers     int
	base, freq float64
	firs       bool
}

func newHills(r *random, p palette, aspect float64) scene {
	return &hills{
		p: p, seed: r.next(), sunX: r.between(0.2, 0.8) * aspect, sunY: r.between(0.16, 0.42), sunR: r.between(0.045, 0.085),
		layers: 5 + r.n(3), base: r.between(0.42, 0.52), freq: r.between(0.9, 1.7), firs: r.float() < 0.75,
	}
}

func (s *hills) at(x, y, px float64) rgb {
	// From the front to the back, until something hides all behind it.
	var tops, covers [8]float64
	back := -1
	for i := s.layers - 1; i >= 0 && back < 0; i-- {
		tops[i] = s.top(i, x, y)
		covers[i] = smooth(tops[i]-px*0.8, tops[i]+px*0.8, y)
		if covers[i] == 1 {
			back = i
		}
	}
	var c rgb
	if back < 0 {
		c, back = s.sky(x, y, px), 0
	}
	for i := back; i < s.layers; i++ {
		if covers[i] > 0 {
			c = c.mix(s.body(i, x, y, tops[i]), covers[i])
		}
	}
	return c
}

func (s *hills) sky(x, y, px float64) rgb {
	p := s.p
	c := gradient(y/0.66, p[1].mix(p[2], 0.25), p[2], p[3], p[4])
	d := math.Hypot(x-s.sunX, y-s.sunY)
	c = c.add(p[5], 0.55*math.Exp(-d*3.2)+0.35*math.Exp(-d*11))
	c = c.mix(p[5], smooth(s.sunR+px, s.sunR-px, d))
	cloud := smooth(0.54, 0.78, fbm(s.seed+5, x*1.6+8, y*7, 5)) * smooth(0.62, 0.2, y)
	return c.mix(p[4].mix(p[5], 0.5), cloud*0.55)
}

// top is the upper edge of a layer, or 2 where y lies above all it can reach.
func (s *hills) top(i int, x, y float64) float64 {
	t := float64(i) / float64(s.layers-1)
	amp := 0.22 - 0.08*t
	foot, size := s.base+0.47*math.Pow(t, 1.15)+0.08, 0.0
	if s.firs && i >= s.layers-2 {
		size = 0.035 + 0.05*t*t
	}
	if y < foot-amp-size-0.01 {
		return 2
	}
	top := foot - amp*ridge(s.seed+uint64(i)*977, x*s.freq*(1+0.75*t)+float64(i)*3.1, 5)
	if size > 0 {
		top -= firs(s.seed+uint64(i), x, size)
	}
	return top
}

// body is the colour of a layer: lit under the sun, with mist at its foot.
func (s *hills) body(i int, x, y, top float64) rgb {
	p := s.p
	t := float64(i) / float64(s.layers-1)
	body := p[3].mix(p[4], 0.3).mix(p[2], smooth(0, 0.35, t)).mix(p[1], smooth(0.25, 0.7, t)).mix(p[0], smooth(0.55, 1, t))
	lit := math.Exp(-math.Abs(x-s.sunX)*1.7) * (1 - t) * math.Exp(-(y-top)*30)
	mist := smooth(0.015, 0.2, y-top) * (0.62 - 0.5*t)
	return body.add(p[5], 0.22*lit).mix(p[4], mist)
}

// firs is how far a row of firs stands above its ground at x.
func firs(seed uint64, x, size float64) float64 {
	best := 0.0
	for row := range 2 {
		w := size * (0.34 + 0.16*float64(row))
		i := math.Floor(x/w + 0.37*float64(row))
		cell := int(i) + row*10000
		h := size * (0.35 + 0.65*lattice(seed+11, cell, 1))
		if noise(seed+17, x*3, 1) < 0.36 {
			h *= 0.3
		}
		u := math.Abs((x/w+0.37*float64(row)-i)-0.5) * 2
		// a fir is a triangle with a saw for an edge
		saw := 0.16 * (1 - math.Abs(2*math.Mod(u*4, 1)-1))
		best = max(best, h*max(0, 1-u*1.25-saw*u))
	}
	return best
}

// aurora: curtains of light over a fjord that reflects them.
type aurora struct {
	p                palette
	seed             uint64
	horizon          float64
	ribbons          [4]ribbon
	green, red, cold rgb
}

type ribbon struct {
	base, swing, freq, height, power float64
	seed                             uint64
}

func newAurora(r *random, p palette, _ float64) scene {
	s := &aurora{p: p, seed: r.next(), horizon: r.between(0.66, 0.76)}
	s.green, s.red, s.cold = p[4].mix(hexColor(0x5dffb0), 0.5), p[3].mix(hexColor(0xa34bd8), 0.6), p[0].mix(hexColor(0x040817), 0.55)
	for i := range s.ribbons {
		s.ribbons[i] = ribbon{
			base: r.between(0.2, 0.56), swing: r.between(0.1, 0.28), freq: r.between(0.7, 1.8),
			height: r.between(0.09, 0.24), power: r.between(0.45, 1), seed: r.next(),
		}
	}
	return s
}

func (s *aurora) sky(x, y, px float64) rgb {
	c := gradient(y/s.horizon, s.cold, s.p[0].mix(s.p[1], 0.6), s.p[1].mix(s.p[2], 0.55))
	c = c.add(rgb{1, 1, 1}, stars(s.seed, x, y, px, 0.3)*smooth(s.horizon, s.horizon-0.3, y))
	for _, b := range s.ribbons {
		wave := fbm(b.seed, x*b.freq, 0.5, 3)
		edge := b.base + b.swing*(wave-0.5)*2
		up := edge - y
		if up < -0.06 {
			continue
		}
		bent := x + 0.12*wave + up*0.1
		rays := 0.25 + 0.75*math.Pow(noise(b.seed+3, bent*26, 0.5)*0.65+noise(b.seed+4, bent*61, 0.5)*0.35, 1.5)*1.6
		part := smooth(0.32, 0.62, noise(b.seed+9, x*1.3, 7))
		light := smooth(-0.05, 0.012, up) * math.Exp(-max(up, 0)/b.height) * rays * b.power * part
		c = c.add(s.green.mix(s.red, smooth(0, 2.1, max(up, 0)/b.height)), light)
	}
	return c
}

func (s *aurora) at(x, y, px float64) rgb {
	if y < s.horizon {
		return s.land(s.sky(x, y, px), x, y, px)
	}
	depth := (y - s.horizon) / (1 - s.horizon)
	ripple := (noise(s.seed+31, x*9, depth*60/(0.25+depth)) - 0.5) * (0.006 + 0.035*depth)
	my := s.horizon - (y-s.horizon)*0.92 + ripple
	c := s.land(s.sky(x+ripple*1.6, my, max(px, 0.004)), x+ripple, my, px)
	c = c.mix(s.cold, 0.25+0.35*depth)
	return c.add(s.green, 0.05*smooth(0.66, 0.9, noise(s.seed+32, x*16, depth*90/(0.3+depth)))*(1-depth))
}

func (s *aurora) land(c rgb, x, y, px float64) rgb {
	for i := range 3 {
		t := float64(i) / 2
		top := s.horizon - (0.2-0.065*float64(i))*ridge(s.seed+uint64(i)*71+40, x*(1.2+0.9*t)+float64(i)*2.7, 5)
		cover := smooth(top-px, top+px, y)
		body := s.p[1].mix(s.p[2], 0.3).mix(s.cold, 0.35+0.6*t)
		snow := smooth(0.045, 0, y-top) * smooth(0.35, 0.75, fbm(s.seed+uint64(i)+51, x*22, y*34, 3)) * (1 - t)
		c = c.mix(body.mix(s.p[5], snow*0.45), cover)
	}
	return c
}

// sea: a sun over water, its glitter, islands and perhaps a boat.
type sea struct {
	p                   palette
	seed                uint64
	horizon             float64
	sunX, sunY, sunR    float64
	boatX, boatY, boatS float64
	islands             int
}

func newSea(r *random, p palette, aspect float64) scene {
	s := &sea{p: p, seed: r.next(), horizon: r.between(0.5, 0.62), sunX: r.between(0.25, 0.75) * aspect, sunR: r.between(0.05, 0.1), islands: r.n(4)}
	s.sunY = s.horizon - r.between(-0.02, 0.26)
	s.boatX, s.boatY, s.boatS = r.between(0.15, 0.85)*aspect, s.horizon+r.between(0.05, 0.16), r.between(0.05, 0.11)
	return s
}

func (s *sea) at(x, y, px float64) rgb {
	if c, in := s.boat(x, y, px); in > 0 {
		return s.water(x, y, px).mix(c, in)
	}
	return s.water(x, y, px)
}

func (s *sea) water(x, y, px float64) rgb {
	p := s.p
	if y < s.horizon {
		return s.sky(x, y, px)
	}
	depth := (y - s.horizon) / (1 - s.horizon)
	far := depth / (0.12 + depth)
	swell := fbm(s.seed+3, x*(9-7*far), far*34, 4)
	my := s.horizon - (y-s.horizon)*0.7 + (swell-0.5)*0.1*depth
	c := s.sky(x+(swell-0.5)*0.06, my, 0.01).mix(p[1], 0.3+0.3*depth).mix(p[0], 0.45*depth)
	c = c.mix(p[0], 0.28*smooth(0.5, 0.3, swell)*smooth(0, 0.2, depth))
	off := (x - s.sunX) / (s.sunR*0.8 + depth*0.17)
	path := math.Exp(-off * off)
	spark := smooth(0.57, 0.7, noise(s.seed+7, x*(30-19*far), far*70)*0.6+swell*0.5)
	c = c.add(p[5].mix(p[4], 0.4), path*(0.18+0.95*spark)*(1-0.5*depth))
	foam := smooth(0.64, 0.72, swell) * smooth(0.02, 0.3, depth)
	return c.add(p[4], 0.14*foam)
}

func (s *sea) sky(x, y, px float64) rgb {
	p := s.p
	c := gradient(y/s.horizon, p[1], p[2], p[3], p[4])
	d := math.Hypot(x-s.sunX, y-s.sunY)
	c = c.add(p[5], 0.5*math.Exp(-d*3)+0.4*math.Exp(-d*10))
	c = c.mix(p[5], smooth(s.sunR+px, s.sunR-px, d))
	band := fbm(s.seed+1, x*1.1+4, y*9, 5)
	cloud := smooth(0.5, 0.72, band) * smooth(s.horizon, s.horizon-0.2, y)
	c = c.mix(p[4].mix(p[2], smooth(0.3, 0, d)), cloud*0.5)
	for i := range s.islands {
		k := uint64(i)
		top := s.horizon - (0.03+0.07*lattice(s.seed+k, 1, i))*smooth(0.42, 0.8, fbm(s.seed+20+k, x*0.9+float64(i)*5, 2, 2))*2.1*ridge(s.seed+30+k, x*3, 4)
		c = c.mix(p[2].mix(p[1], 0.35+0.3*float64(i)), smooth(top-px, top+px, y)*smooth(0, 0.012, s.horizon-top))
	}
	return c
}

// boat is the colour of a sailing boat at a point, and how much of it is there.
func (s *sea) boat(x, y, px float64) (rgb, float64) {
	if s.boatS < 0.06 {
		return rgb{}, 0
	}
	u, v := (x-s.boatX)/s.boatS, (s.boatY-y)/s.boatS
	e := px / s.boatS
	if u < -1.2 || u > 1.2 || v < -0.3 || v > 1.8 {
		return rgb{}, 0
	}
	edge := func(d float64) float64 { return smooth(-e, e, d) }
	hull := edge(v+0.12) * edge(0.1-v) * edge(0.62+0.9*v-math.Abs(u))
	main := edge(v-0.15) * edge(u-0.05) * edge((1.6-v)*0.44-u)
	jib := edge(v-0.15) * edge(-0.02-u) * edge((1.35-v)*0.36+u)
	sail := max(main, jib)
	c := s.p[0]
	if sail > hull {
		c = s.p[5].mix(s.p[3], 0.25+0.25*clamp(-u))
	}
	return c, max(hull, sail)
}
